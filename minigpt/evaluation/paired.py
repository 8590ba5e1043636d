"""Paired comparison of two models on the same documents or questions.

Both models are resampled together, so that the noise of the items cancels in differences and ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from minigpt.errors import MiniGPTError
from minigpt.evaluation.bootstrap import Array, interval, resampled_sums
from minigpt.evaluation.ratios import RATIOS
from minigpt.evaluation.summary import Items, columns_of
from minigpt.results import Interval

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


def metric_interval(columns: Array, metric: str, *, seed: int = 0, resamples: int = 1000) -> Interval:
    """Compute a metric of averaged items with its 95 % interval.

    Args:
        columns: Numerators and denominators from `averaged`, [items, 2].
        metric: A key of `RATIOS`.
        seed: Seed of the resamples.
        resamples: Number of resamples.
    """
    drawn = resampled_sums(columns, seed=seed, resamples=resamples)
    return interval(float(_value(columns.sum(0), metric)), _value(drawn.T, metric))


def paired(
    ours: Array, baseline: Array, metric: str, *, how: Contrast = "difference", seed: int = 0, resamples: int = 1000
) -> Interval:
    """Compare two models on the same resampled items, with a 95 % interval.

    Args:
        ours: Numerators and denominators from `averaged`, [items, 2].
        baseline: Those of the model to compare with, on the same items in the same order.
        metric: A key of `RATIOS`.
        how: `difference` for ours - baseline, `ratio` for ours / baseline. Use ratios only for metrics that cannot be
            zero, such as bits per byte.
        seed: Seed of the resamples.
        resamples: Number of resamples.

    Raises:
        MiniGPTError: The two models do not have the same number of items.
    """
    if len(ours) != len(baseline):
        raise MiniGPTError(f"{len(ours)} items cannot be paired with {len(baseline)}; measure both on the same suite.")
    both = np.concatenate([ours, baseline], axis=1)
    drawn = resampled_sums(both, seed=seed, resamples=resamples)
    return interval(float(_contrast(both.sum(0), metric, how)), _contrast(drawn.T, metric, how))


def _value(sums: Array, metric: str) -> Array:
    """Compute the metric from summed columns, [2, ...]."""
    return RATIOS[metric].value(sums[0], sums[1])


def _contrast(sums: Array, metric: str, how: Contrast) -> Array:
    """Compute difference or ratio from the summed columns of two models, [4, ...]."""
    ours, baseline = _value(sums[:2], metric), _value(sums[2:], metric)
    return ours - baseline if how == "difference" else ours / baseline
