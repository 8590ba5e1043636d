"""Slicing: cut rows and columns out of projections, layers out of the stack, and update the config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import PlanError, UnsupportedModel
from minigpt.pruning.experts import set_experts, write_count
from minigpt.transformer.arch import (
    arch_of,
    base_model,
    check_shape,
    decoder_layers,
    fixed_layers,
    head_dim,
    heads_per_group,
    kv_groups_of,
    shape_of,
)
from minigpt.types import Ints, PrunePlan, Shape


def plan_shape(model_or_config: Any, plan: PrunePlan) -> Shape:
    """Check a plan against the parent, and return the shape that it leaves (vocabulary as in the parent).

    Raises:
        PlanError: widths differ between layers, indices are out of range, unsorted or repeated, or the shape would
            not load.
    """
    parent = shape_of(model_or_config)
    if not len(plan.layers) == len(plan.ffn) == len(plan.kv_groups):
        raise PlanError(
            "The plan must list neurons and KV groups for each kept layer; make it again with minigpt build."
        )
    if plan.experts and len(plan.experts) != len(plan.layers):
        raise PlanError("The plan must list experts for each kept layer; make it again with minigpt build.")
    _check_indices("layers", (plan.layers,), parent.layers)
    if gone := sorted(set(fixed_layers(model_or_config)) - set(plan.layers)):
        raise PlanError(
            f"The plan removes layer {gone[0]}, and of this family only layers stay out whose kind can be removed; "
            "choose a method that leaves it (shortgpt, contextual)."
        )
    shape = Shape(
        layers=len(plan.layers),
        intermediate_size=_check_indices("neurons", plan.ffn, parent.intermediate_size),
        kv_groups=_check_indices("KV groups", plan.kv_groups, parent.kv_groups),
        vocab_size=parent.vocab_size,
        experts=_check_indices("experts", plan.experts, parent.experts) if plan.experts else parent.experts,
    )
    check_shape(model_or_config, shape)
    return shape


def refuse_merges(plan: PrunePlan, what: str) -> None:
    """Refuse a plan that merges layers, where the dense model's own weights are needed.

    Args:
        plan: the plan to check.
        what: the participle for the error: "masked", "repaired".

    Raises:
        PlanError: the plan merges layers.
    """
    if plan.merges:
        raise PlanError(f"A plan that merges layers ({plan.method}) cannot be {what}; leave that step out.")


def _check_indices(what: str, rows: Sequence[Ints], size: int) -> int:
    """Check the kept indices of every layer and return their common number."""
    widths = {len(row) for row in rows}
    if len(widths) != 1 or widths == {0}:
        raise PlanError(f"The plan keeps {sorted(widths)} {what}; every layer must keep the same number, at least one.")
    for row in rows:
        if row[0] < 0 or row[-1] >= size or any(a >= b for a, b in pairwise(row)):
            raise PlanError(f"The plan's {what} must be ascending, without repeats, and below {size}.")
    return widths.pop()


def keeps_everything(model_or_config: Any, plan: PrunePlan) -> bool:
    """Return whether a plan leaves layers, neurons, experts and KV groups as they are."""
    return plan_shape(model_or_config, plan) == shape_of(model_or_config)


def head_columns(groups: Iterable[int], width: int) -> Tensor:
    """Expand KV group indices to the rows (or columns) they own, `width` of them each; int64."""
    starts = torch.tensor(tuple(groups), dtype=torch.long) * width
    return (starts[:, None] + torch.arange(width)).flatten()


def linear(layer: nn.Module, path: str) -> nn.Linear:
    """Return a projection of a decoder layer.

    Raises:
        UnsupportedModel: the projection is not a plain linear layer, as in quantized or adapter-wrapped models.
    """
    module = layer.get_submodule(path)
    if not isinstance(module, nn.Linear) or not module.weight.is_floating_point():
        raise UnsupportedModel(
            f"{path} is a {type(module).__name__}, not a plain linear layer; load the parent unquantized and merge "
            "adapters first."
        )
    return module


def keep_rows(module: nn.Linear, rows: Tensor) -> None:
    """Keep these output features of a projection, bias included, in place."""
    if len(rows) == module.out_features:
        return
    index = rows.to(module.weight.device)
    _replace(module, "weight", module.weight.detach().index_select(0, index))
    if module.bias is not None:
        _replace(module, "bias", module.bias.detach().index_select(0, index))
    module.out_features = len(rows)


def keep_columns(module: nn.Linear, columns: Tensor) -> None:
    """Keep these input features of a projection, in place."""
    if len(columns) == module.in_features:
        return
    _replace(module, "weight", module.weight.detach().index_select(1, columns.to(module.weight.device)))
    module.in_features = len(columns)


def _replace(module: nn.Module, name: str, value: Tensor) -> None:
    """Replace a parameter of a module."""
    old = getattr(module, name)
    setattr(module, name, nn.Parameter(value.contiguous(), requires_grad=old.requires_grad))


def slice_ffn(model: Any, layer: nn.Module, neurons: Ints) -> None:
    """Keep these neurons of a layer: rows of gate and up, columns of down."""
    spec, index = arch_of(model), torch.tensor(neurons, dtype=torch.long)
    if spec.experts is not None:
        refuse_narrow_experts(model, neurons)
        return
    if not spec.ffn_columns:
        return
    for path in spec.ffn_rows:
        keep_rows(linear(layer, path), index)
    keep_columns(linear(layer, spec.ffn_columns), index)
    mlp: Any = layer.get_submodule(spec.ffn_module)
    if hasattr(mlp, "intermediate_size"):
        mlp.intermediate_size = len(neurons)


def refuse_narrow_experts(model: Any, neurons: Ints) -> None:
    """Refuse to remove neurons from a layer of experts, whose width stays.

    Raises:
        PlanError: some neurons are not kept.
    """
    if len(neurons) != shape_of(model).intermediate_size:
        raise PlanError("Only method expert-width removes neurons inside of experts; choose it, or remove experts.")


def slice_attention(model: Any, layer: nn.Module, groups: Ints) -> None:
    """Keep these KV groups of a layer with all their query heads: rows of q, k and v, columns of o."""
    if arch_of(model).state is not None:
        return
    spec, head, ratio = arch_of(model), head_dim(model.config), heads_per_group(model.config)
    query, key_value = head_columns(groups, head * ratio), head_columns(groups, head)
    keep_rows(linear(layer, spec.query), query)
    for path in spec.key_value:
        keep_rows(linear(layer, path), key_value)
    keep_columns(linear(layer, spec.output), query)
    for path in spec.per_head:
        holder, _, name = path.rpartition(".")
        _keep_heads(layer.get_submodule(holder), name, head_columns(groups, ratio))
    attention = layer.get_submodule(spec.attention_module)
    for name, value in (("num_heads", len(groups) * ratio), ("num_key_value_heads", len(groups))):
        if hasattr(attention, name):
            setattr(attention, name, value)


def _keep_heads(module: nn.Module, name: str, heads: Tensor) -> None:
    """Keep the entries of these query heads of a parameter, in place."""
    value = getattr(module, name)
    if len(heads) != len(value):
        setattr(module, name, nn.Parameter(value.detach()[heads.to(value.device)], requires_grad=value.requires_grad))


def keep_layers(model: Any, kept: Ints) -> None:
    """Drop all other decoder layers and renumber the kept ones: caches depend on `layer_idx`, RWKV's on `layer_id`."""
    path, _, last = arch_of(model).layers.rpartition(".")
    layers = decoder_layers(model)
    setattr(model.get_submodule(path), last, nn.ModuleList([layers[index] for index in kept]))
    for index, layer in enumerate(decoder_layers(model)):
        renumber(layer, index)


def renumber(layer: nn.Module, place: int) -> None:
    """Tell a decoder layer and its parts its place among the layers."""
    numbered: Any
    for numbered in layer.modules():
        for name in ("layer_idx", "layer_id"):
            if hasattr(numbered, name):
                setattr(numbered, name, place)


def projections(layer: nn.Module) -> list[nn.Parameter]:
    """List the weights and biases of a layer's linear projections and experts, in order, without its norms."""
    return [
        parameter
        for module in layer.modules()
        if isinstance(module, nn.Linear) or any(value.ndim > 1 for value in module.parameters(recurse=False))
        for parameter in module.parameters(recurse=False)
    ]


@torch.no_grad()
def fold_layer(model: Any, merge: Ints) -> None:
    """Add to a host layer the differences between its followers and itself (LaCo, eq. 1); the followers stay.

    theta_l' = theta_l + sum_k (theta_(l+k) - theta_l), for the projections. `merge` is (host, folded, ...).
    """
    layers = decoder_layers(model)
    host, *followers = (projections(layers[index]) for index in merge)
    for place, parameter in enumerate(host):
        difference = torch.stack([follower[place] - parameter for follower in followers]).sum(0)
        parameter.add_(difference)


def update_config(model: Any, plan: PrunePlan, shape: Shape) -> None:
    """Write the new widths into the config and cut its per-layer lists; keeping everything changes nothing."""
    configs = {id(config): config for config in (model.config, base_model(model).config)}
    for config in configs.values():
        narrow_config(config, plan.layers, shape)
    if (experts := arch_of(model).experts) is not None:
        write_count(model, experts.counts, shape.experts)


def narrow_config(config: Any, layers: Ints, shape: Shape) -> None:
    """Write a shape into a config, and cut its per-layer lists to the kept layers."""
    parent = shape_of(config)
    set_kv_groups(config, shape.kv_groups)
    set_experts(config, shape.experts)
    if shape.intermediate_size != parent.intermediate_size:
        setattr(config, arch_of(config).width, shape.intermediate_size)
        if adjusted := arch_of(config).width_adjusted:
            setattr(config, adjusted, False)
    if shape.layers != parent.layers:
        _drop_config_layers(config, layers)


def set_kv_groups(config: Any, groups: int) -> None:
    """Write a number of KV groups and of their heads into a config; the head size stays."""
    head, ratio = head_dim(config), heads_per_group(config)
    if groups != kv_groups_of(config):
        config.head_dim = head
        setattr(config, arch_of(config).groups, groups)
        config.num_attention_heads = groups * ratio


def _drop_config_layers(config: Any, kept: Ints) -> None:
    """Cut the config's per-layer lists and counts to the kept layers."""
    for name in arch_of(config).per_layer:
        if (values := getattr(config, name, None)) is not None:
            setattr(config, name, [values[index] for index in kept])
    for name in arch_of(config).numbered:
        if (numbers := getattr(config, name, None)) is not None:
            setattr(config, name, [kept.index(layer) for layer in numbers if layer in kept])
    if getattr(config, "max_window_layers", None) is not None:
        config.max_window_layers = sum(index < config.max_window_layers for index in kept)
    config.num_hidden_layers = len(kept)


def nothing(size: int, *, routed: bool = False) -> Callable[[Tensor], Any]:
    """Make a stand-in for a module that adds nothing: it returns zeros of this size, whatever the size of its input.

    Args:
        size: features of the zeros.
        routed: whether the module gives its routing beside its output, of which there is none.
    """

    def zeros(states: Tensor) -> Any:
        result = states.new_zeros(*states.shape[:-1], size)
        return (result, None) if routed else result

    return zeros


def no_ffn(model: Any) -> Callable[[Tensor], Any]:
    """Make a stand-in for the FFN or the experts of a model's layer that adds nothing."""
    experts = arch_of(model).experts
    return nothing(int(model.config.hidden_size), routed=experts is not None and experts.gives_routing)


@contextmanager
def forward_replaced(module: nn.Module, forward: Any) -> Iterator[None]:
    """Let `module(...)` call `forward` inside the block; the module's own forward is restored afterwards."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
