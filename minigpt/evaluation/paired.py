"""Two models on the same documents or questions: difference and ratio, with the noise of the items cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from minigpt.errors import MiniGPTError
from minigpt.evaluation.bootstrap import Array, interval, resampled_sums
from minigpt.evaluation.ratios import RATIOS
from minigpt.evaluation.summary import Items, columns_of
from minigpt.types import Interval

How = Literal["difference", "ratio"]


def averaged(runs: Sequence[Items], metric: str) -> Array:
    """Numerator and denominator of `metric` for every item, averaged over runs (seeds), [items, 2].

    Raises:
        MiniGPTError: the runs were measured on different items.
    """
    if any(run.keys != runs[0].keys for run in runs):
        raise MiniGPTError("These runs were measured on different documents or questions; measure them again.")
    mean: Array = np.mean([columns_of(run, (metric,)) for run in runs], axis=0)
    return mean


def value_of(columns: Array, metric: str, *, seed: int = 0, resamples: int = 1000) -> Interval:
    """The metric of averaged items with its 95 % interval."""
    drawn = resampled_sums(columns, seed=seed, resamples=resamples)
    return interval(float(_value(columns.sum(0), metric)), _value(drawn.T, metric))


def paired(
    ours: Array, theirs: Array, metric: str, *, how: How = "difference", seed: int = 0, resamples: int = 1000
) -> Interval:
    """`ours - theirs` or `ours / theirs` in the same resampled items, with its 95 % interval.

    Args:
        ours: [items, 2] of `averaged`.
        theirs: The same items in the same order.
        metric: A key of `RATIOS`.
        how: What is compared; ratios are for metrics that cannot be zero, such as bits per byte.
        seed: Seeds the resamples.
        resamples: How many.

    Raises:
        MiniGPTError: not the same number of items.
    """
    if len(ours) != len(theirs):
        raise MiniGPTError(f"{len(ours)} items cannot be paired with {len(theirs)}; measure both on the same suite.")
    both = np.concatenate([ours, theirs], axis=1)
    drawn = resampled_sums(both, seed=seed, resamples=resamples)
    return interval(float(_compared(both.sum(0), metric, how)), _compared(drawn.T, metric, how))


def _value(sums: Array, metric: str) -> Array:
    return RATIOS[metric].value(sums[0], sums[1])


def _compared(sums: Array, metric: str, how: How) -> Array:
    ours, theirs = _value(sums[:2], metric), _value(sums[2:], metric)
    return ours - theirs if how == "difference" else ours / theirs
