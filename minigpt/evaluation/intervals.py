"""95 % intervals of ratios of sums over documents or questions, by Student's t.

A metric is a ratio of two sums over items, so its variance comes from what each item does to it: the jackknife of a
ratio (Efron and Stein 1981), which also holds where one item is large. Degrees of freedom are the effective number of
items less one. `benchmarks/interval_coverage.py` measures how often such an interval holds the truth, beside the
percentile bootstrap.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from minigpt.evaluation.ratios import Array
from minigpt.results import Interval


def effective_number(weights: Array) -> float:
    """Count how many equal items are worth as much as these: 1 / sum of squared shares (Kish 1965).

    Args:
        weights: Sizes of the items, e.g. bytes of documents; none of them negative, [items].
    """
    shares = weights / weights.sum()
    return float(1 / np.square(shares).sum())


def influences(numerator: Array, denominator: Array) -> Array:
    """Compute what each item does to the ratio of the sums: the ratio less that of the other items, [items].

    Args:
        numerator: One summand of the numerator for each item, [items].
        denominator: One summand of the denominator for each item, [items].
    """
    total = denominator.sum()
    residuals = numerator - numerator.sum() / total * denominator
    others = total - denominator
    # An item without others has no residual either.
    effects: Array = np.divide(residuals, others, out=np.zeros_like(residuals), where=others != 0)
    return effects


def half_width(effects: Array, effective: float) -> float:
    """Compute half the width of a 95 % interval from the items' influences.

    A single item says nothing about others: it gets 0, and readers must look at the number of items.

    Args:
        effects: Influences of the items on the value, [items].
        effective: Effective number of items; the degrees of freedom are one less.
    """
    items = len(effects)
    if items < 2:
        return 0.0
    variance = (items - 1) / items * float(np.square(effects - effects.mean()).sum())
    return t_quantile(effective - 1) * math.sqrt(variance)


def around(value: float, width: float) -> Interval:
    """Put an interval of half width `width` around a value."""
    return Interval(value=value, low=value - width, high=value + width)


def share_interval(values: Array) -> Interval:
    """Compute the mean of values between 0 and 1 with Wilson's score interval.

    Wilson's (1927) stays within 0 and 1 and has a width where all values are equal. Values between 0 and 1, which are
    means over several models, vary less than single answers do: then as many single answers stand for them as have the
    same variance.

    Args:
        values: 1 for a right answer and 0 for a wrong one, or means of such, [items].
    """
    items, share = len(values), float(values.mean())
    if items < 2:
        return Interval(value=share, low=share, high=share)
    variance = float(values.var(ddof=1)) / items
    answers = share * (1 - share) / variance if variance > 0 and 0 < share < 1 else float(items)
    squared = t_quantile(items - 1) ** 2
    center = (share + squared / (2 * answers)) / (1 + squared / answers)
    spread = math.sqrt(squared * (share * (1 - share) / answers + squared / (4 * answers**2))) / (1 + squared / answers)
    return Interval(value=share, low=min(share, max(0.0, center - spread)), high=max(share, min(1.0, center + spread)))


def share_difference(ours: Array, baseline: Array) -> Interval:
    """Compute the mean difference of paired values between 0 and 1, with its interval.

    One item more on which only one model is right, and one on which only the other is, are added (Bonett and Price
    2012). So the interval has a width where the models answer alike, because other items might have told them apart.
    On scores such as token F1 a whole point would be far more than items differ by, and would hide small losses: the
    two items that are added to scores differ by as much as two of them that were drawn at random.

    Args:
        ours: Values of one model, as for :func:`share_interval`, [items].
        baseline: Values of the other on the same items, [items].
    """
    differences = ours - baseline
    items, value = len(differences), float(differences.mean())
    if items < 2:
        return Interval(value=value, low=value, high=value)
    step = typical_difference(np.concatenate([ours, baseline]))
    more = np.append(differences, [step, -step])
    width = t_quantile(items - 1) * math.sqrt(float(more.var()) / len(more))
    center = float(more.mean())
    return Interval(value=value, low=max(-1.0, min(value, center - width)), high=min(1.0, max(value, center + width)))


def typical_difference(values: Array) -> float:
    """Compute how far two items may be apart: 1 for right and wrong answers, else the root mean square of two draws.

    Args:
        values: Values between 0 and 1 of all models, [values].
    """
    if np.isin(values, (0.0, 1.0)).all() or np.ptp(values) == 0:
        return 1.0
    return math.sqrt(2) * float(values.std())


@cache
def t_quantile(freedom: float) -> float:
    """Compute the 97.5 % quantile of Student's t.

    Args:
        freedom: Degrees of freedom, which need not be whole; below 1 counts as 1.
    """
    from scipy.special import stdtrit

    return float(stdtrit(max(1.0, freedom), 0.975))
