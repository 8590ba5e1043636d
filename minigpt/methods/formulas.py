"""Importance formulas: pure functions from activation statistics and weight norms to scores of units.

A method that needs nothing else is one function here, `(Material) -> Scores`, and one row of the table. Scores rank the
units of one layer: the planner gives every layer the same widths, because a threshold across layers removes whole
layers in effect (docs/results/methods.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from minigpt.errors import ConfigError
from minigpt.methods.scores import Scores, WeightNorms

if TYPE_CHECKING:
    from torch import Tensor

    from minigpt.methods.material import Material
    from minigpt.transformer.stats import ActivationStats


def contextual(material: Material) -> Scores:
    """Score units by what they add to the residual stream on the domain's text: the default method.

    With `material.contrast` above 0, importance for general text counts against importance for the domain.

    Raises:
        ConfigError: a contrast is set, and there is no general text to contrast with.
    """
    domain = _contextual(material.statistics, material.norms, material.kinds)
    if not material.contrast:
        return domain
    if material.general_statistics is None:
        raise ConfigError(
            "plan.contrast compares with general text, and this build has none; name a `general:` domain in the domain "
            "file and leave evaluation.general on, or set plan.contrast=0."
        )
    general = _contextual(material.general_statistics, material.norms, material.kinds)
    return Scores(
        ffn=contrasted(domain.ffn, general.ffn, material.contrast),
        kv_groups=contrasted(domain.kv_groups, general.kv_groups, material.contrast),
        layers=contrasted(domain.layers, general.layers, material.contrast),
        experts=contrasted(
            experts_loss(material.statistics), experts_loss(material.general_statistics), material.contrast
        ),
    )


def _contextual(statistics: ActivationStats, norms: WeightNorms, kinds: frozenset[str]) -> Scores:
    """Score by contribution to the residual stream; with one kind of evidence, by the formula of that kind."""
    if kinds == {"linear"}:
        ffn = ffn_linear(statistics)
    elif kinds == {"activation"}:
        ffn = ffn_activation(statistics)
    else:
        ffn = ffn_contribution(statistics, norms)
    return Scores(
        ffn=ffn,
        kv_groups=groups_contribution(statistics, norms),
        layers=statistics.layer_cos,
        experts=experts_loss(statistics),
    )


def linear(material: Material) -> Scores:
    """Score FFN units and KV groups by mean magnitudes at their projections (Mini-GPTs' linear pruning, structural)."""
    statistics = material.statistics
    return Scores(ffn=ffn_linear(statistics), kv_groups=statistics.head_abs, layers=statistics.layer_cos)


def activation(material: Material) -> Scores:
    """Score neurons by the mean magnitude of their activation function's output (Mini-GPTs' activation pruning)."""
    statistics = material.statistics
    return Scores(ffn=ffn_activation(statistics), kv_groups=statistics.head_abs, layers=statistics.layer_cos)


def wanda(material: Material) -> Scores:
    """Sum |W_ij| x ||X_j|| over the columns of down and o that a unit owns (Sun et al. 2023, eq. 1, structured).

    ||X_j|| is the root mean square over tokens: the number of tokens is the same for all units.
    """
    statistics, norms = material.statistics, material.norms
    return Scores(
        ffn=norms.down_abs * statistics.ffn_sq.sqrt(),
        kv_groups=_per_group(norms.output_abs * statistics.column_sq.sqrt(), norms.groups),
        layers=statistics.layer_cos,
    )


def flap(material: Material) -> Scores:
    """Score units by fluctuation, standardized over each layer so that one ranking can hold all layers (FLAP).

    A KV group's score is the mean over its columns.
    """
    norms = material.norms
    ffn, columns = fluctuations(material.statistics, norms)
    groups = standardized(columns).view(len(columns), norms.groups, -1).mean(-1)
    return Scores(ffn=standardized(ffn), kv_groups=groups, layers=material.statistics.layer_cos)


def magnitude(material: Material) -> Scores:
    """Score units by the norms of their weights, without any text: a baseline."""
    norms = material.norms
    return Scores(
        ffn=(norms.rows + norms.down).sqrt(),
        kv_groups=norms.group.sqrt(),
        layers=(norms.group.sum(1) + norms.rows.sum(1) + norms.down.sum(1)).sqrt(),
    )


def random(material: Material) -> Scores:
    """Score units by seeded noise: the baseline that every method has to beat."""
    import torch

    norms, generator = material.norms, torch.Generator().manual_seed(material.seed)
    return Scores(
        ffn=torch.rand(norms.down.shape, generator=generator),
        kv_groups=torch.rand(norms.group.shape, generator=generator),
        layers=torch.rand(norms.down.shape[0], generator=generator),
        experts=torch.rand(material.statistics.expert_share.shape, generator=generator),
    )


def reap(material: Material) -> Scores:
    """Score experts by REAP: mean of router weight x norm of the output over the tokens that go to the expert.

    S_j = 1 / |X_j| x sum over x in X_j of g_j(x) x ||f_j(x)||_2 (Lasby et al. 2025, arXiv 2510.13999).
    """
    return _experts(material, material.statistics.expert_gated)


def expert_frequency(material: Material) -> Scores:
    """Score experts by the share of tokens that the router sends to them: a baseline."""
    return _experts(material, material.statistics.expert_share)


def _experts(material: Material, scores: Tensor) -> Scores:
    """Score experts, and everything else as the default method does."""
    return replace(_contextual(material.statistics, material.norms, material.kinds), experts=scores)


def without_experts(material: Material) -> Scores:
    """Score everything but experts as the default method does."""
    return replace(_contextual(material.statistics, material.norms, material.kinds), experts=None)


def experts_loss(statistics: ActivationStats) -> Tensor:
    """Score experts by the root of the reconstruction loss that removing one alone causes, [L, E].

    It holds how often the domain's text goes to an expert, with which weight, what the expert gives, and how well the
    next best expert stands in for it.
    """
    return statistics.expert_loss.sqrt()


def ffn_linear(statistics: ActivationStats) -> Tensor:
    """Score FFN units by the magnitudes at their projections' outputs (gate, up) and input (down), [L, I].

    Mini-GPTs removes a unit where min(mean |input|, mean |output|) falls under one absolute threshold. The three
    places differ in scale, so each is first divided by its mean over the layer: the minimum then tells where the unit
    is weakest compared with its neighbors.
    """
    import torch

    places = torch.stack([_relative(statistics.gate_abs), _relative(statistics.up_abs), _relative(statistics.ffn_abs)])
    return places.min(dim=0).values


def ffn_activation(statistics: ActivationStats) -> Tensor:
    """Score FFN neurons by the output of their activation function: mean |act(gate)|, [L, I] (Mini-GPTs, A_act)."""
    return statistics.act_abs


def ffn_contribution(statistics: ActivationStats, norms: WeightNorms) -> Tensor:
    """Score FFN neurons by the RMS of their output times the norm of the column of down that carries it on, [L, I]."""
    return (statistics.ffn_sq * norms.down).sqrt()


def groups_contribution(statistics: ActivationStats, norms: WeightNorms) -> Tensor:
    """Score KV groups: root of the sum over their columns of o of mean square input x squared column norm, [L, G]."""
    return _per_group(statistics.column_sq * norms.output, norms.groups).sqrt()


def fluctuations(statistics: ActivationStats, norms: WeightNorms) -> tuple[Tensor, Tensor]:
    """Compute FLAP's WIFV (An et al. 2023, eq. 5) for the columns of down, [L, I], and of o, [L, A].

    It is the variance of an input x the squared norm of its column: the part that a constant bias could not replace.
    The value for o is squared once more, as in the authors' program.
    """
    ffn = (statistics.ffn_sq - statistics.ffn_mean.square()).clamp_min(0) * norms.down
    columns = (statistics.column_sq - statistics.column_mean.square()).clamp_min(0) * norms.output
    return ffn, columns.square()


def standardized(values: Tensor) -> Tensor:
    """Scale each row to mean 0 and standard deviation 1; a row without differences becomes zero."""
    centered = values - values.mean(dim=1, keepdim=True)
    return centered / values.std(dim=1, keepdim=True).clamp_min(1e-30)


def contrasted(domain: Tensor, general: Tensor, factor: float) -> Tensor:
    """Subtract `factor` x importance for general text from importance for the domain, each standardized by layer.

    Args:
        domain: importance for the domain, [L, units]; a vector is taken as one row.
        general: importance for general text, of the same shape.
        factor: weight of general text; with 0 the order is that of the domain alone.
    """
    if not domain.numel():
        return domain
    if domain.ndim == 1:
        return contrasted(domain[None], general[None], factor)[0]
    return standardized(domain) - factor * standardized(general)


def _per_group(columns: Tensor, groups: int) -> Tensor:
    """Sum [L, A] over the columns of each KV group, [L, G]."""
    return columns.view(columns.shape[0], groups, -1).sum(-1)


def _relative(values: Tensor) -> Tensor:
    """Divide each row by its mean."""
    return values / values.mean(dim=1, keepdim=True).clamp_min(1e-30)
