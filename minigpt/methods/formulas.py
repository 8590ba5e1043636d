"""The formulas: pure functions from activation statistics and weight norms to the importance of units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minigpt.methods.scores import Options, Statistics, WeightNorms

if TYPE_CHECKING:
    from torch import Tensor


def _per_group(columns: Tensor, groups: int) -> Tensor:
    return columns.view(columns.shape[0], groups, -1).sum(-1)


def _relative(values: Tensor) -> Tensor:
    return values / values.mean(dim=1, keepdim=True).clamp_min(1e-30)


def ffn_linear(stats: Statistics) -> Tensor:
    """FFN units by the magnitudes at their projections' outputs (gate, up) and input (down), [L, I].

    Mini-GPTs removes a unit where min(mean |input|, mean |output|) falls under one absolute threshold. The three
    places differ in scale, so each is first divided by its mean over the layer: min then asks where the unit is
    weakest compared with its neighbors.
    """
    import torch

    places = torch.stack([_relative(stats.gate_abs), _relative(stats.up_abs), _relative(stats.ffn_abs)])
    return places.min(dim=0).values


def ffn_activation(stats: Statistics) -> Tensor:
    """FFN neurons by what their activation function gives out: mean |act(gate)|, [L, I] (Mini-GPTs, A_act)."""
    return stats.act_abs


def ffn_contribution(stats: Statistics, weights: WeightNorms) -> Tensor:
    """RMS of what a neuron sends into down, times the norm of the column that carries it on, [L, I] (Wanda)."""
    return (stats.ffn_sq * weights.down).sqrt()


def groups_contribution(stats: Statistics, weights: WeightNorms) -> Tensor:
    """The same for a KV group: root of the sum over its columns of mean square x squared column norm, [L, G]."""
    return _per_group(stats.column_sq * weights.output, weights.groups).sqrt()


def contextual(stats: Statistics, weights: WeightNorms, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """The default. Both kinds of evidence: contribution to the residual stream; one kind alone: that kind's form."""
    by_kind = {
        frozenset(("linear",)): lambda: ffn_linear(stats),
        frozenset(("activation",)): lambda: ffn_activation(stats),
    }
    ffn = by_kind.get(options.kinds, lambda: ffn_contribution(stats, weights))()
    return ffn, groups_contribution(stats, weights), stats.layer_cos


def linear(stats: Statistics, weights: WeightNorms, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Mini-GPTs' linear pruning, made structural: FFN units and KV groups by mean magnitudes at the projections."""
    return ffn_linear(stats), stats.head_abs, stats.layer_cos


def activation(stats: Statistics, weights: WeightNorms, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Mini-GPTs' activation pruning: neurons by the mean magnitude of the activation function's output."""
    return ffn_activation(stats), stats.head_abs, stats.layer_cos


def wanda(stats: Statistics, weights: WeightNorms, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Structured Wanda: |W_ij| x ||X_j|| (Sun et al., eq. 1) summed over the columns of down and o a unit owns.

    ||X_j|| is taken as the root mean square over tokens: the number of tokens is the same for all units.
    """
    ffn = weights.down_abs * stats.ffn_sq.sqrt()
    return ffn, _per_group(weights.output_abs * stats.column_sq.sqrt(), weights.groups), stats.layer_cos


def fluctuations(stats: Statistics, weights: WeightNorms) -> tuple[Tensor, Tensor]:
    """FLAP's WIFV (eq. 5): variance of an input x squared norm of its column, for down [L, I] and o [L, A].

    What a constant bias could not replace. The form for o is squared once more, as in the authors' program.
    """
    ffn = (stats.ffn_sq - stats.ffn_mean.square()).clamp_min(0) * weights.down
    columns = (stats.column_sq - stats.column_mean.square()).clamp_min(0) * weights.output
    return ffn, columns.square()


def flap(stats: Statistics, weights: WeightNorms, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Fluctuation, standardized over each layer, so that one ranking can hold all layers; a group is its mean."""
    ffn, columns = fluctuations(stats, weights)
    groups = standardized(columns).view(len(columns), weights.groups, -1).mean(-1)
    return standardized(ffn), groups, stats.layer_cos


def standardized(values: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over each row; a row without differences becomes zero."""
    centered = values - values.mean(dim=1, keepdim=True)
    return centered / values.std(dim=1, keepdim=True).clamp_min(1e-30)


def contrasted(domain: Tensor, general: Tensor, factor: float) -> Tensor:
    """Importance for the domain less `factor` x importance for general text, each standardized over its layer.

    [L, units]; a vector is taken as one row. With factor 0 the order is that of the domain alone.
    """
    if domain.ndim == 1:
        return contrasted(domain[None], general[None], factor)[0]
    return standardized(domain) - factor * standardized(general)


def magnitude(stats: Statistics, weights: WeightNorms, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Weights alone, no text: a baseline."""
    ffn = (weights.rows + weights.down).sqrt()
    return ffn, weights.group.sqrt(), (weights.group.sum(1) + weights.rows.sum(1) + weights.down.sum(1)).sqrt()


def random(stats: Statistics, weights: WeightNorms, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Seeded noise: the baseline every method has to beat."""
    import torch

    generator = torch.Generator().manual_seed(options.seed)
    ffn, groups = (
        torch.rand(weights.down.shape, generator=generator),
        torch.rand(weights.group.shape, generator=generator),
    )
    return ffn, groups, torch.rand(weights.down.shape[0], generator=generator)
