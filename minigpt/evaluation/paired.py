"""Metrics of items with intervals, and the paired comparison of two models on the same documents or questions.

What an item does to one model and what it does to the other are subtracted item by item, so that the noise of the items
cancels in differences and ratios. The interval holds the noise of documents or questions, not that of training again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from minigpt.errors import MiniGPTError
from minigpt.evaluation.intervals import (
    around,
    effective_number,
    half_width,
    influences,
    share_difference,
    share_interval,
)
from minigpt.evaluation.items import Items
from minigpt.evaluation.ratios import RATIOS, Array, columns_of
from minigpt.results import Interval

# Exponent beyond which no float is left.
LARGEST_EXPONENT = 700.0

Contrast = Literal["difference", "ratio"]


def averaged(runs: Sequence[Items], metric: str) -> Array:
    """Average the numerator and denominator of `metric` over runs (seeds), item by item.

    Args:
        runs: Item scores of the same task, one for each run.
        metric: A key of `RATIOS`.

    Returns:
        Mean numerators and denominators, [items, 2].

    Raises:
        MiniGPTError: The runs were measured on different items.
    """
    if any(run.keys != runs[0].keys for run in runs):
        raise MiniGPTError("These runs were measured on different documents or questions; measure them again.")
    mean: Array = np.mean([columns_of(run, (metric,)) for run in runs], axis=0)
    return mean


def metric_interval(columns: Array, metric: str) -> Interval:
    """Compute a metric of averaged items with its 95 % interval.

    The interval of a perplexity is that of its exponent, raised like the value. A share of 0 or 1 over all items has
    Wilson's interval of as many answers as the items are worth: that none was seen does not prove that there is none.

    Args:
        columns: Numerators and denominators from `averaged`, [items, 2].
        metric: A key of `RATIOS`.
    """
    formula = RATIOS[metric]
    if formula.denominator is None:
        return share_interval(columns[:, 0])
    ratio = float(columns[:, 0].sum() / columns[:, 1].sum())
    effective = effective_number(columns[:, 1])
    if formula.is_share and ratio in (0.0, 1.0):
        return share_interval(np.full(int(effective), ratio))
    exponent = around(ratio, half_width(influences(*columns.T), effective))
    value, low, high = formula.link(np.array([exponent.value, max(0.0, exponent.low), exponent.high])).tolist()
    return Interval(value=value, low=low, high=high)


def paired(ours: Array, baseline: Array, metric: str, *, how: Contrast = "difference") -> Interval:
    """Compare two models on the same items, with a 95 % interval.

    Args:
        ours: Numerators and denominators from `averaged`, [items, 2].
        baseline: Those of the model to compare with, on the same items in the same order.
        metric: A key of `RATIOS`.
        how: `difference` for ours - baseline, `ratio` for ours / baseline. Use ratios only for metrics that cannot be
            zero, such as bits per byte.

    Raises:
        MiniGPTError: The two models do not have the same number of items.
    """
    if len(ours) != len(baseline):
        raise MiniGPTError(f"{len(ours)} items cannot be paired with {len(baseline)}; measure both on the same suite.")
    if RATIOS[metric].denominator is None and how == "difference":
        return share_difference(ours[:, 0], baseline[:, 0])
    (our_value, our_effects), (their_value, their_effects) = _linear(ours, metric), _linear(baseline, metric)
    effective = effective_number(ours[:, 1] / ours[:, 1].sum() + baseline[:, 1] / baseline[:, 1].sum())
    if how == "difference":
        return around(our_value - their_value, half_width(our_effects - their_effects, effective))
    ratio = our_value / their_value
    width = half_width(our_effects / our_value - their_effects / their_value, effective)
    spread = math.exp(width) if width < LARGEST_EXPONENT else math.inf
    return Interval(value=ratio, low=ratio / spread, high=ratio * spread)


def _linear(columns: Array, metric: str) -> tuple[float, Array]:
    """Compute the metric, and what each item does to it to first order (the delta method), [items]."""
    formula = RATIOS[metric]
    ratio = np.asarray(columns[:, 0].sum() / columns[:, 1].sum())
    return float(formula.link(ratio)), formula.slope(ratio) * influences(*columns.T)
