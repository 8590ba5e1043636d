"""Overlap of tickets: Jaccard index against chance with intervals, mask distance, and the core that tickets share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor

from minigpt.results import Interval
from minigpt.tickets.masks import Masks

RESAMPLES = 2000
LEVEL = 0.95
# Masks that are compared to see whether a ticket has emerged (You et al. 2020, section 3.2).
SETTLED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Overlap of two tickets.

    Attributes:
        jaccard: weights in both tickets over weights in either, with a bootstrap interval over matrices.
        chance: the same for two independent random masks of the same densities in each matrix.
        ratio: Jaccard index over chance, with a bootstrap interval over matrices.
    """

    jaccard: Interval
    chance: float
    ratio: Interval


def counts(first: Masks, second: Masks) -> np.ndarray:
    """Count for each matrix: its weights, those of either ticket, and those of both, [matrices, 4]."""
    rows = [
        (mask.numel(), int(mask.sum()), int(second[name].sum()), int((mask & second[name]).sum()))
        for name, mask in first.items()
    ]
    return np.array(rows, dtype=np.float64)


def jaccard(table: np.ndarray) -> float:
    """Compute |A and B| / |A or B| over all matrices of :func:`counts`."""
    _, first, second, both = table.sum(0)
    return float(both / max(1.0, first + second - both))


def chance(table: np.ndarray) -> float:
    """Compute the Jaccard index of independent masks with the same densities, by the expected sizes.

    In a matrix of n weights with a and b kept, a b / n are expected in both.
    """
    size, first, second, _ = table.T
    both = (first * second / size).sum()
    return float(both / max(1.0, first.sum() + second.sum() - both))


def overlap(first: Masks, second: Masks, *, seed: int = 0) -> Overlap:
    """Compare two tickets of the same matrices, with 95 % intervals from a bootstrap over the matrices.

    Args:
        first: a ticket.
        second: another one.
        seed: seed of the resampling.
    """
    table = counts(first, second)
    generator = np.random.default_rng(seed)
    drawn = table[generator.integers(len(table), size=(RESAMPLES, len(table)))]
    pairs = np.array([(jaccard(rows), jaccard(rows) / max(chance(rows), 1e-12)) for rows in drawn])
    value, expected = jaccard(table), chance(table)
    return Overlap(
        jaccard=_between(value, pairs[:, 0]), chance=expected, ratio=_between(value / max(expected, 1e-12), pairs[:, 1])
    )


def _between(value: float, resampled: np.ndarray) -> Interval:
    """Put the middle 95 % of resampled values around a value."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def over_seeds(values: Sequence[float]) -> Interval:
    """Average values of several seeds, with a 95 % interval from Student's t; of one value it is the value itself."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(value=mean, low=mean, high=mean)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(value=mean, low=mean - half, high=mean + half)


def mask_distance(first: Masks, second: Masks) -> float:
    """Compute the share of weights on which two masks differ (You et al. 2020, arXiv 1909.11957, section 3.2)."""
    different = sum(int((mask ^ second[name]).sum()) for name, mask in first.items())
    return different / sum(mask.numel() for mask in first.values())


def has_settled(recent: Sequence[Masks], limit: float, *, length: int = SETTLED) -> bool:
    """Say whether a ticket has emerged early: the last masks differ from the newest by less than a limit.

    Args:
        recent: masks that pruning would give at evaluations one after the other, the newest last.
        limit: largest distance.
        length: number of masks that are compared.
    """
    if len(recent) < length:
        return False
    *earlier, newest = recent[-length:]
    return max(mask_distance(mask, newest) for mask in earlier) < limit


def core(tickets: Sequence[Masks]) -> dict[str, Tensor]:
    """Keep the weights that all tickets share."""
    shared = {name: mask.clone() for name, mask in tickets[0].items()}
    for ticket in tickets[1:]:
        for name in shared:
            shared[name] &= ticket[name]
    return shared


def core_share(tickets: Sequence[Masks]) -> tuple[float, float]:
    """Return the share of all weights in the core of the tickets, and the share that chance would give."""
    size = sum(mask.numel() for mask in tickets[0].values())
    shared = sum(int(mask.sum()) for mask in core(tickets).values())
    expected = sum(
        mask.numel() * math.prod(float(ticket[name].float().mean()) for ticket in tickets)
        for name, mask in tickets[0].items()
    )
    return shared / size, expected / size
