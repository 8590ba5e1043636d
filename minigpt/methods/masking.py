"""Mask units of a dense model for the paper forms: zero the columns that read them, any number in each layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from minigpt.pruning.slicing import linear
from minigpt.transformer.arch import arch_of, decoder_layers, head_dim, heads_per_group, refuse_experts
from minigpt.transformer.fused import separate_projections


def keep_highest(scores: Tensor, sizes: Tensor, remove: int) -> Tensor:
    """Remove the lowest-scoring units until `remove` parameters are gone.

    Args:
        scores: one score a unit, of all layers and kinds together; of equal scores the first unit goes first.
        sizes: parameters of each unit, int64.
        remove: parameters to remove at least.

    Returns:
        The units that stay, as booleans.
    """
    order = scores.argsort(stable=True)
    kept = torch.ones(len(scores), dtype=torch.bool)
    if remove > 0:
        short = int((sizes[order].cumsum(0) < remove).sum())
        kept[order[: short + 1]] = False
    return kept


def mask_units(model: Any, groups: Tensor, neurons: Tensor) -> None:
    """Zero the columns of o and down that belong to units not kept, in place.

    Args:
        model: the dense model.
        groups: KV groups that each layer keeps, bool [L, G].
        neurons: neurons that each layer keeps, bool [L, I].
    """
    refuse_experts(model, "The paper form")
    spec, width = arch_of(model), head_dim(model.config) * heads_per_group(model.config)
    with separate_projections(model), torch.no_grad():
        for index, layer in enumerate(decoder_layers(model)):
            columns = groups[index].repeat_interleave(width)
            for path, kept in ((spec.output, columns), (spec.ffn_columns, neurons[index])):
                weight = linear(layer, path).weight
                weight[:, ~kept.to(weight.device)] = 0


def compensate(module: nn.Linear, means: Tensor, kept: Tensor) -> None:
    """Add the average contribution of removed inputs to a projection's bias: the sum over them of mean x column.

    Args:
        module: o or down, still dense.
        means: mean of each input, [inputs].
        kept: inputs that stay, bool [inputs].
    """
    weight = module.weight
    constant = weight.detach().float() @ means.masked_fill(kept, 0).to(weight.device, torch.float32)
    ensure_bias(module)
    with torch.no_grad():
        module.bias.add_(constant.to(weight.dtype))


def ensure_bias(module: nn.Linear) -> None:
    """Give a projection without a bias one of zero."""
    if module.bias is None:
        module.bias = nn.Parameter(module.weight.new_zeros(module.out_features))
