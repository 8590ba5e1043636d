"""Experts of a layer: their routing, routing among some of them, and what each one gives on calibration text.

Every sum runs through the family's own router and experts, so no formula of a family is written down here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.transformer.arch import arch_of, decoder_layers, experts_of
from minigpt.transformer.batches import Batch, run_decoder, take_tokens
from minigpt.transformer.families import ARCHITECTURES
from minigpt.transformer.specs import ExpertSpec

# Tokens whose experts are measured at once, since the output of every expert of every token is kept meanwhile.
CHUNK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Experts of each token.

    Attributes:
        weights: factors on the experts' outputs, [tokens, experts of a token].
        indices: the experts, int64 of the same shape.
    """

    weights: Tensor
    indices: Tensor


def expert_spec(model: Any) -> ExpertSpec:
    """Return the description of the experts of a model that has some."""
    spec = arch_of(model).experts
    assert spec is not None
    return spec


def route(router: nn.Module, states: Tensor, kept: Sequence[int] | None = None) -> Routing:
    """Route tokens by a layer's own router, among all experts or among those that are kept.

    Among some experts, the rows of the others are left out of the router, as cutting does it; indices still count all.

    Args:
        router: the router of a layer.
        states: inputs of the experts, [tokens, hidden].
        kept: experts that may be chosen, ascending (None: all).
    """
    if kept is None:
        _, weights, indices = router(states)
        return Routing(weights=weights, indices=indices)
    rows = torch.tensor(tuple(kept), dtype=torch.long, device=states.device)
    narrow = {name: values.index_select(0, rows) for name, values in _values(router)}
    _, weights, indices = torch.func.functional_call(router, narrow, (states,))
    return Routing(weights=weights, indices=rows[indices])


def _values(module: nn.Module) -> list[tuple[str, Tensor]]:
    """List parameters and buffers of a module: correction biases may be either."""
    return [*module.named_parameters(), *module.named_buffers()]


def router_parameters(model: Any) -> list[nn.Parameter]:
    """List the parameters of all routers; empty if the family has no experts, or is not in the table."""
    row = ARCHITECTURES.get(str(getattr(model.config, "model_type", "unknown")))
    spec = None if row is None else row.experts
    if spec is None:
        return []
    layers = decoder_layers(model)
    return [parameter for layer in layers for parameter in layer.get_submodule(spec.router).parameters()]


def expert_outputs(experts: nn.Module, states: Tensor, indices: Tensor) -> Tensor:
    """Compute what experts give for tokens, without the weights of the routing.

    Args:
        experts: the experts of a layer.
        states: [tokens, hidden].
        indices: experts of each token, int64 [tokens, n].

    Returns:
        [tokens, n, hidden], in fp32.
    """
    tokens, count = indices.shape
    repeated = states.repeat_interleave(count, 0)
    flat = indices.reshape(-1, 1)
    outputs: Tensor = experts(repeated, flat, torch.ones_like(flat, dtype=states.dtype))
    return outputs.reshape(tokens, count, -1).float()


def measure(router: nn.Module, experts: nn.Module, states: Tensor, count: int) -> dict[str, Tensor]:
    """Sum over tokens what each of `count` experts of a layer does, all in fp32.

    Returns:
        `routed`: tokens that go to the expert. `gated`: router weight times the norm of the expert's output, over these
        tokens (the sum in REAP's saliency, Lasby et al. 2025). `loss`: squared change of the experts' joint output if
        the expert is removed and its tokens go to the next best one.
    """
    sums = {name: torch.zeros(count, device=states.device) for name in ("routed", "gated", "loss")}
    for part in torch.split(states, CHUNK):
        routing = route(router, part)
        outputs = expert_outputs(experts, part, routing.indices)
        weights = routing.weights.float()
        flat = routing.indices.flatten()
        sums["routed"].index_add_(0, flat, torch.ones_like(flat, dtype=torch.float32))
        sums["gated"].index_add_(0, flat, (weights * outputs.norm(dim=-1)).flatten())
        joint = torch.einsum("nk,nkh->nh", weights, outputs)
        for expert in range(count) if count > routing.indices.shape[1] else ():
            rows = (routing.indices == expert).any(1).nonzero().squeeze(1)
            if len(rows):
                kept = [index for index in range(count) if index != expert]
                without = _without(router, experts, part[rows], kept, routing.indices[rows], outputs[rows])
                sums["loss"][expert] += (joint[rows] - without).square().sum()
    return sums


def _without(
    router: nn.Module, experts: nn.Module, states: Tensor, kept: Sequence[int], before: Tensor, outputs: Tensor
) -> Tensor:
    """Compute the joint output of the kept experts, given the outputs of those that tokens went to before.

    Args:
        router: the router of a layer.
        experts: the experts of a layer.
        states: [tokens, hidden].
        kept: experts that may be chosen.
        before: experts that the tokens went to, [tokens, n].
        outputs: outputs of these, [tokens, n, hidden].

    Returns:
        [tokens, hidden], in fp32.
    """
    routing = route(router, states, kept)
    same = routing.indices[:, :, None] == before[:, None, :]
    result = torch.einsum("nk,nkm,nmh->nh", routing.weights.float(), same.float(), outputs)
    rows, places = (~same.any(-1)).nonzero(as_tuple=True)
    fresh = expert_outputs(experts, states[rows], routing.indices[rows, places][:, None])[:, 0]
    return result.index_add_(0, rows, fresh * routing.weights[rows, places].float()[:, None])


@torch.no_grad()
def expert_inputs(model: Any, batches: Iterable[Batch], *, tokens: int = CHUNK) -> list[Tensor]:
    """Return what the experts of each layer read for the first tokens of text, [tokens, hidden] for each layer."""
    spec, inputs = expert_spec(model), [list[Tensor]() for _ in decoder_layers(model)]
    rows = torch.empty(0, dtype=torch.long)

    def keep(place: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs[place].append(args[0].reshape(-1, args[0].shape[-1]).index_select(0, rows))

        return hook

    with ExitStack() as stack:
        for place, layer in enumerate(decoder_layers(model)):
            stack.callback(layer.get_submodule(spec.block).register_forward_pre_hook(keep(place)).remove)
        for batch in take_tokens(batches, tokens):
            rows = (batch.segment_ids != 0).flatten().nonzero().squeeze(1).to(model.device)
            run_decoder(model, batch)
    return [torch.cat(parts)[:tokens] for parts in inputs]


def expert_hook(
    model: Any, layer: nn.Module, pick: Callable[[Tensor], Tensor], add: Callable[[str, Tensor], None]
) -> Any:
    """Register a hook on the experts of a layer that measures every expert; returns its handle.

    Args:
        model: the model.
        layer: one of its layers.
        pick: takes the text rows [n, hidden] of an activation.
        add: adds a sum to those of the layer.
    """
    spec, count = expert_spec(model), experts_of(model.config)
    router, experts = layer.get_submodule(spec.router), layer.get_submodule(spec.experts)

    def hook(_module: nn.Module, args: tuple[Tensor, ...], _output: Any) -> None:
        states = pick(args[0]).to(args[0].dtype)
        for name, value in measure(router, experts, states, count).items():
            add(f"expert_{name}", value)

    return layer.get_submodule(spec.block).register_forward_hook(hook)
