"""Attribution of removed parameters to the kinds of pruning of the Mini-GPTs paper, and to whole layers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from minigpt.methods.formulas import ffn_activation, ffn_linear
from minigpt.methods.scores import WeightNorms
from minigpt.transformer.costs import UnitCosts
from minigpt.types import PrunePlan, Shape

if TYPE_CHECKING:
    from torch import Tensor


def removed_parameters(
    plan: PrunePlan,
    before: Shape,
    after: Shape,
    costs: UnitCosts,
    stats: Any,
    norms: WeightNorms,
    kinds: Collection[str] | None,
) -> dict[str, int]:
    """Count the parameters removed by each kind of pruning; the counts sum to the total.

    The kinds are `linear`, `activation`, `embedding` and `layers`, and `experts` where the parent has some. KV groups
    count as linear pruning. A removed neuron counts as activation pruning if it ranks lower in its layer by the output
    of its activation function than by the magnitudes at its projections, otherwise as linear pruning; where `--kinds`
    allows only one of the two, it counts as that one. Neurons inside of experts count as linear pruning.

    Args:
        plan: the units that are kept.
        before: shape of the parent.
        after: shape of the result.
        costs: parameters of each unit.
        stats: activation statistics of the parent.
        norms: weight norms of the parent.
        kinds: kinds of pruning that were allowed (None: all).
    """
    neurons = before.intermediate_size - after.intermediate_size
    groups = (before.kv_groups - after.kv_groups) * len(plan.layers) * costs.per_kv_group
    by_activation = _by_activation(plan, stats, kinds) if neurons else 0
    total = neurons * len(plan.layers)
    experts = costs.experts(before) - costs.experts(replace(before, experts=after.experts))
    inside = costs.experts(replace(before, experts=after.experts)) - costs.experts(after)
    return ({"experts": experts * len(plan.layers)} if before.experts else {}) | {
        "linear": groups + (total - by_activation) * costs.per_neuron + inside * len(plan.layers),
        "activation": by_activation * costs.per_neuron,
        "embedding": (before.vocab_size - after.vocab_size) * costs.per_token,
        "layers": (before.layers - len(plan.layers)) * costs.layer(before),
    }


def _by_activation(plan: PrunePlan, stats: Any, kinds: Collection[str] | None) -> int:
    """Count the removed neurons that rank lower by their activation than by their projections."""
    linear, activation = _ranks(ffn_linear(stats)), _ranks(ffn_activation(stats))
    width = linear.shape[1]
    counted = 0
    for layer, kept in zip(plan.layers, plan.ffn, strict=True):
        removed = sorted(set(range(width)) - set(kept))
        if kinds is not None and "linear" not in kinds:
            counted += len(removed)
        elif kinds is None or "activation" in kinds:
            counted += int((activation[layer, removed] < linear[layer, removed]).sum())
    return counted


def _ranks(scores: Tensor) -> Tensor:
    """Rank each unit in its layer; 0 is the least important."""
    return scores.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
