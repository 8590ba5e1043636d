"""Application of a plan: remove its units from a model, or mask them in the dense model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from minigpt.pruning.experts import restricted, slice_experts
from minigpt.pruning.slicing import (
    fold_layer,
    forward_replaced,
    head_columns,
    keep_layers,
    linear,
    plan_shape,
    refuse_merges,
    slice_attention,
    slice_ffn,
    update_config,
)
from minigpt.transformer.arch import arch_of, decoder_layers, head_dim, heads_per_group
from minigpt.transformer.experts import expert_spec
from minigpt.transformer.fused import separate_projections
from minigpt.transformer.specs import StateSpec
from minigpt.types import PrunePlan

ModelT = TypeVar("ModelT")


def apply_plan(model: ModelT, plan: PrunePlan) -> ModelT:
    """Slice a model in place to the layers, FFN neurons, experts and KV groups of a plan; the vocabulary stays.

    The result is a stock model: uniform widths, contiguous `layer_idx`, and a config that matches the tensors' shapes.
    A plan that keeps everything changes no byte.

    Returns:
        The same model object.

    Raises:
        PlanError: the plan does not fit the model, or the result would not load.
        UnsupportedModel: the family is unknown or its projections are not plain linear layers.
    """
    shape = plan_shape(model, plan)
    layers = decoder_layers(model)
    with separate_projections(model):
        for merge in plan.merges:
            fold_layer(model, merge)
        for index, neurons, groups in zip(plan.layers, plan.ffn, plan.kv_groups, strict=True):
            slice_ffn(model, layers[index], neurons)
            slice_attention(model, layers[index], groups)
        for index, experts in zip(plan.layers, plan.experts, strict=False):
            slice_experts(model, layers[index], experts)
    keep_layers(model, plan.layers)
    update_config(model, plan, shape)
    return model


@contextmanager
def mask_plan(model: Any, plan: PrunePlan) -> Iterator[None]:
    """Let the dense model compute what the pruned one would inside the block: removed units zeroed, layers bypassed.

    The weights are neither copied nor changed. Use it with `use_cache=False`: a bypassed layer writes nothing into a
    key-value cache.

    Raises:
        PlanError: the plan does not fit the model, or merges layers, which needs other weights.
    """
    plan_shape(model, plan)
    refuse_merges(plan, "masked")
    spec, layers = arch_of(model), decoder_layers(model)
    with ExitStack() as stack:
        stack.enter_context(separate_projections(model))
        for index, layer in enumerate(layers):
            if index not in plan.layers:
                stack.enter_context(forward_replaced(layer, _bypass if spec.state is None else _pass_on(spec.state)))
        for index, neurons, groups in zip(plan.layers, plan.ffn, plan.kv_groups, strict=True):
            columns = {}
            if spec.state is None:
                width = head_dim(model.config) * heads_per_group(model.config)
                columns[spec.output] = head_columns(groups, width)
            if spec.experts is None and spec.ffn_columns:
                columns[spec.ffn_columns] = torch.tensor(neurons)
            for path, kept in columns.items():
                module = linear(layers[index], path)
                stack.callback(module.register_forward_pre_hook(_zeroing(module, kept)).remove)
        for index, experts in zip(plan.layers, plan.experts, strict=False):
            router = layers[index].get_submodule(expert_spec(model).router)
            stack.enter_context(forward_replaced(router, restricted(router, experts)))
        yield


def _bypass(hidden_states: Tensor, *_args: object, **_kwargs: object) -> Tensor:
    """Stand in for a removed layer: return its input."""
    return hidden_states


def _pass_on(state: StateSpec) -> Callable[..., Any]:
    """Make a stand-in for a removed layer that carries a state: it gives its input, and the state as it came."""

    def forward(states: Tensor, **kwargs: Any) -> Any:
        return states if state.outputs == 1 else (states, kwargs.get(state.cache), *(None,) * (state.outputs - 2))

    return forward


def _zeroing(module: nn.Linear, kept: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """Make a hook that zeroes the inputs that are not kept."""
    mask = torch.zeros(module.in_features, dtype=torch.bool)
    mask[kept] = True
    removed = ~mask.to(module.weight.device)
    return lambda _module, args: (args[0].masked_fill(removed, 0), *args[1:])
