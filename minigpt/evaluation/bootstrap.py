"""Percentile bootstrap of sums over documents or questions; all columns share the same resamples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from minigpt.results import Interval

Array = NDArray[np.float64]
# Number of draws held in memory at a time.
BLOCK = 2**22


def resampled_sums(columns: Array, *, seed: int = 0, resamples: int = 1000) -> Array:
    """Sum each column over items drawn with replacement.

    Columns of one call share their resamples: differences between them are paired.

    Args:
        columns: Values to sum, [items, columns].
        seed: Seed of the draws; equal seeds and item counts give equal draws.
        resamples: Number of resamples; each draws as many items as there are.

    Returns:
        The sums, [resamples, columns].
    """
    return np.concatenate([counts @ columns for counts in _draws(len(columns), seed, resamples)])


def interval(value: float, resampled: Array) -> Interval:
    """Put the 2.5 and 97.5 percentiles of the resampled values around `value` (Efron 1979).

    Args:
        value: The statistic of the items themselves.
        resampled: The same statistic of each resample, [resamples].
    """
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(value=float(value), low=float(low), high=float(high))


def _draws(items: int, seed: int, resamples: int) -> Iterator[Array]:
    """Yield how often each item is drawn, [block, items] at a time, so that memory stays bounded."""
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK // items)
    for start in range(0, resamples, rows):
        block = min(rows, resamples - start)
        drawn = generator.integers(items, size=(block, items)) + np.arange(block)[:, None] * items
        yield np.bincount(drawn.ravel(), minlength=block * items).reshape(block, items).astype(np.float64)
