"""Hide units in a dense model by zeroing what carries them on, each layer its own number: the papers' own forms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from minigpt.pruning.slicing import linear
from minigpt.transformer.arch import arch_of, decoder_layers, head_dim, heads_per_group


def lowest_first(scores: Tensor, sizes: Tensor, remove: int) -> Tensor:
    """Which units stay, as booleans, when the lowest-scoring go until `remove` parameters are gone.

    Args:
        scores: one for each unit, of all layers and kinds together; ties go in order.
        sizes: parameters of each unit, int64.
        remove: parameters to remove at least.
    """
    order = scores.argsort(stable=True)
    kept = torch.ones(len(scores), dtype=torch.bool)
    if remove > 0:
        short = int((sizes[order].cumsum(0) < remove).sum())
        kept[order[: short + 1]] = False
    return kept


def hide(model: Any, groups: Tensor, neurons: Tensor) -> None:
    """Zero the columns of o and down that belong to units not kept, in place.

    Args:
        model: the dense model.
        groups: bool [L, G], which KV groups each layer keeps.
        neurons: bool [L, I].
    """
    spec, width = arch_of(model), head_dim(model.config) * heads_per_group(model.config)
    with torch.no_grad():
        for index, layer in enumerate(decoder_layers(model)):
            columns = groups[index].repeat_interleave(width)
            for path, kept in ((spec.output, columns), (spec.ffn_columns, neurons[index])):
                weight = linear(layer, path).weight
                weight[:, ~kept.to(weight.device)] = 0


def compensate(module: nn.Linear, means: Tensor, kept: Tensor) -> None:
    """Add to the module's bias what the removed inputs give on average: sum over them of mean x column.

    Args:
        module: o or down, still dense.
        means: mean of each input, [inputs].
        kept: bool [inputs].
    """
    weight = module.weight
    constant = weight.detach().float() @ means.masked_fill(kept, 0).to(weight.device, torch.float32)
    ensure_bias(module)
    with torch.no_grad():
        module.bias.add_(constant.to(weight.dtype))


def ensure_bias(module: nn.Linear) -> None:
    """Give a projection a bias of zero if it has none."""
    if module.bias is None:
        module.bias = nn.Parameter(module.weight.new_zeros(module.out_features))
