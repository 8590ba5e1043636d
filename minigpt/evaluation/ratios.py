"""Table of the metrics' formulas; needs only numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigpt.evaluation.items import Items

Array = NDArray[np.float64]


def _identity(ratio: Array) -> Array:
    """Return the ratio unchanged."""
    return ratio


def _one(ratio: Array) -> Array:
    """Return the slope of the unchanged ratio."""
    return np.ones_like(ratio)


def _exp2(bits: Array) -> Array:
    """Compute 2 ** bits, capped so that JSON can hold it: text without white space is one word of thousands of bits."""
    return np.exp2(np.minimum(bits, 1000.0))


def _exp2_slope(bits: Array) -> Array:
    """Compute the slope of 2 ** bits."""
    return np.multiply(np.log(2), _exp2(bits))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Formula of a metric: `link(sum of numerator / sum of denominator)` over items.

    Attributes:
        description: Meaning of the metric in words.
        numerator: Column of the item records to sum.
        denominator: Column of the item records to divide by; None counts the items.
        link: Function applied to the ratio; it never falls.
        slope: Derivative of `link`.
        higher_is_better: Whether a greater value is better.
    """

    description: str
    numerator: str
    denominator: str | None
    link: Callable[[Array], Array] = _identity
    slope: Callable[[Array], Array] = _one
    higher_is_better: bool = False

    def value(self, numerator: Any, denominator: Any) -> Array:
        """Compute the metric from sums, or from arrays of sums."""
        return self.link(np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64))


RATIOS: dict[str, Ratio] = {
    "bits_per_byte": Ratio(
        description="Sum of -log2 p over all tokens, divided by the UTF-8 bytes of the text.",
        numerator="bits",
        denominator="bytes",
    ),
    "word_perplexity": Ratio(
        description="2 to the power of the bits per word, words being parted by white space (if any).",
        numerator="bits",
        denominator="words",
        link=_exp2,
        slope=_exp2_slope,
    ),
    "token_perplexity": Ratio(
        description="2 to the power of the bits per token; comparable only between models with the same tokenizer.",
        numerator="bits",
        denominator="tokens",
        link=_exp2,
        slope=_exp2_slope,
    ),
    "accuracy": Ratio(
        description="Share of questions whose choice with the greatest log-likelihood is right.",
        numerator="correct",
        denominator=None,
        higher_is_better=True,
    ),
    "accuracy_norm": Ratio(
        description="Share of questions whose choice with the greatest log-likelihood per UTF-8 byte is right.",
        numerator="correct_norm",
        denominator=None,
        higher_is_better=True,
    ),
    "recitation": Ratio(
        description="Share of a passage's next characters that greedy decoding gives back before its first error.",
        numerator="recited",
        denominator="characters",
    ),
}
TEXT_METRICS = ("bits_per_byte", "word_perplexity", "token_perplexity")
QUESTION_METRICS = ("accuracy", "accuracy_norm")
RECITATION_METRICS = ("recitation",)


def columns_of(items: Items, names: Sequence[str]) -> Array:
    """Set the numerator and denominator of each metric side by side, [items, 2 * metrics]."""
    columns = []
    for name in names:
        columns.append(getattr(items, RATIOS[name].numerator))
        denominator = RATIOS[name].denominator
        columns.append(np.ones(len(items.keys)) if denominator is None else getattr(items, denominator))
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
