"""Neurons inside of stacked experts: which stored rows and columns are theirs, what they give, and cutting them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import UnsupportedModel
from minigpt.transformer.experts import expert_spec, route
from minigpt.transformer.specs import ExpertSpec

# Attributes of modules that repeat the width of an expert.
_WIDTHS = ("intermediate_dim", "intermediate_size", "expert_dim")


def parameters_by_neuron(module: nn.Module, spec: ExpertSpec) -> dict[str, int]:
    """Return the parameters of stacked experts that belong to neurons, with the dimension that runs over them.

    Args:
        module: the experts of a layer.
        spec: their row of the table.

    Raises:
        UnsupportedModel: the experts are stored in another form, as in quantized models.
    """
    into, out = (2, 1) if spec.alternating else (1, 2)
    places = {"gate_up_proj": into, "gate_up_proj_bias": 1, "down_proj": out}
    names = {name for name, value in module.named_parameters(recurse=False) if value.is_floating_point()}
    if not {"gate_up_proj", "down_proj"} <= names:
        raise UnsupportedModel(
            "The experts are not stored as one matrix for gate and up and one for down; load the parent unquantized."
        )
    return {name: dim for name, dim in places.items() if name in names}


def stored_places(neurons: Tensor, width: int, name: str, spec: ExpertSpec) -> Tensor:
    """Return the places in a stored parameter of one expert that belong to some of its neurons, in their order.

    Args:
        neurons: int64 [n].
        width: neurons of the expert.
        name: the parameter.
        spec: row of the table.
    """
    if "gate_up" not in name:
        return neurons
    if spec.alternating:
        return torch.stack([2 * neurons, 2 * neurons + 1], 1).flatten()
    return torch.cat([neurons, neurons + width])


def taken(module: nn.Module, spec: ExpertSpec, expert: int, neurons: Tensor) -> dict[str, Tensor]:
    """Return the parameters of one expert with some of its neurons, in their order; those of no neuron stay."""
    places, values = parameters_by_neuron(module, spec), dict(module.named_parameters(recurse=False))
    width = values["down_proj"].shape[places["down_proj"]]
    result = {}
    for name, value in values.items():
        one = value.detach()[expert]
        if name in places:
            rows = stored_places(neurons.to(value.device), width, name, spec)
            one = one.index_select(places[name] - 1, rows)
        result[name] = one
    return result


def set_parameters(module: nn.Module, experts: list[dict[str, Tensor]]) -> None:
    """Store the parameters of all experts of a layer, [experts, ...] each."""
    for name, old in list(module.named_parameters(recurse=False)):
        stacked = torch.stack([one[name] for one in experts]).contiguous()
        setattr(module, name, nn.Parameter(stacked, requires_grad=old.requires_grad))


@torch.no_grad()
def narrow_experts(model: Any, layer: nn.Module, kept: list[Tensor]) -> None:
    """Keep some neurons of each expert of a layer, as many of all, of its own choice.

    Args:
        model: the model.
        layer: one of its layers.
        kept: int64 [n] for each expert, ascending.
    """
    spec = expert_spec(model)
    module: Any = layer.get_submodule(spec.experts)
    set_parameters(module, [taken(module, spec, expert, neurons) for expert, neurons in enumerate(kept)])
    for name in _WIDTHS:
        if hasattr(module, name):
            setattr(module, name, len(kept[0]))


@torch.no_grad()
def contributions(model: Any, layer: nn.Module, states: Tensor) -> Tensor:
    """Return what each neuron of each expert adds to the layer's output: its root mean square times its column's norm.

    The mean is over the tokens that go to the expert, each with its router weight. What a neuron gives is read by
    running the family's own experts with columns of the identity in place of those of down, so no formula of a family
    is written down here. An expert that no token goes to is ranked by the norms of its columns.

    Args:
        model: the model.
        layer: one of its layers.
        states: inputs of the layer's experts, [tokens, hidden].

    Returns:
        [experts, neurons], in fp32.
    """
    spec = expert_spec(model)
    module, routing = layer.get_submodule(spec.experts), route(layer.get_submodule(spec.router), states)
    dim = parameters_by_neuron(module, spec)["down_proj"]
    down = module.get_parameter("down_proj").detach()
    norms: Tensor = down.float().norm(dim=3 - dim)
    result = norms.clone()
    for expert in range(len(down)):
        rows, slots = (routing.indices == expert).nonzero(as_tuple=True)
        if len(rows):
            inner = inner_outputs(module, spec, states[rows], expert) * routing.weights[rows, slots].float()[:, None]
            result[expert] = inner.square().mean(0).sqrt() * norms[expert]
    return result


def inner_outputs(module: nn.Module, spec: ExpertSpec, states: Tensor, expert: int) -> Tensor:
    """Compute what each neuron of one expert gives for tokens, in front of down; [tokens, neurons] in fp32."""
    dim = parameters_by_neuron(module, spec)["down_proj"]
    down = module.get_parameter("down_proj").detach()
    width, hidden = down.shape[dim], down.shape[3 - dim]
    own = torch.full((len(states), 1), expert, device=states.device)
    parts, bias = [], {name: torch.zeros_like(value) for name, value in _biases(module).items()}
    for start in range(0, width, hidden):
        count = min(hidden, width - start)
        identity = torch.zeros_like(down)
        places = torch.arange(count, device=down.device)
        if dim == 2:
            identity[:, places, start + places] = 1
        else:
            identity[:, start + places, places] = 1
        changed = {"down_proj": identity, **bias}
        ones = torch.ones_like(own, dtype=states.dtype)
        outputs = torch.func.functional_call(module, changed, (states, own, ones))
        parts.append(outputs[:, :count].float())
    return torch.cat(parts, 1)


def _biases(module: nn.Module) -> dict[str, Tensor]:
    """Return the biases behind down, which belong to no neuron."""
    return {name: value for name, value in module.named_parameters(recurse=False) if name == "down_proj_bias"}
