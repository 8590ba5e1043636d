"""Table of the metrics' formulas; needs only numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigpt.evaluation.items import AnswerItems, Items

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


def _at_most_one(ratio: Array) -> Array:
    """Return the ratio, at most 1: the upper end of an interval may lie beyond."""
    return np.minimum(ratio, 1.0)


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

    @property
    def is_share(self) -> bool:
        """True if the metric lies between 0 and 1."""
        return self.denominator is None or self.link is _at_most_one

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
        link=_at_most_one,
    ),
    "exact_match": Ratio(
        description="Share of answers that equal a right one, both without case, punctuation and articles.",
        numerator="exact_match",
        denominator=None,
        higher_is_better=True,
    ),
    "token_f1": Ratio(
        description="Mean F1 over the words of an answer and the right one, without case, punctuation and articles.",
        numerator="token_f1",
        denominator=None,
        higher_is_better=True,
    ),
    "label_f1": Ratio(
        description="Macro F1: the mean over labels of F1 between answers and right labels.",
        numerator="label_f1",
        denominator="items",
        link=_at_most_one,
        higher_is_better=True,
    ),
    "rouge_l": Ratio(
        description="Mean F1 over the longest common subsequence of words of an answer and the right one.",
        numerator="rouge_l",
        denominator=None,
        higher_is_better=True,
    ),
    "format_compliance": Ratio(
        description="Share of answers of the form that was asked for: one of the choices, or the whole pattern.",
        numerator="format_compliance",
        denominator=None,
        higher_is_better=True,
    ),
    "instructions_followed": Ratio(
        description="Share of answers that follow every verifiable constraint of their prompt.",
        numerator="instructions_followed",
        denominator=None,
        higher_is_better=True,
    ),
    "constraints_followed": Ratio(
        description="Share of all verifiable constraints that were followed.",
        numerator="constraints_followed",
        denominator="constraints",
        link=_at_most_one,
        higher_is_better=True,
    ),
}
TEXT_METRICS = ("bits_per_byte", "word_perplexity", "token_perplexity")
RECITATION_METRICS = ("recitation",)


def columns_of(items: Items, names: Sequence[str]) -> Array:
    """Set the numerator and denominator of each metric side by side, [items, 2 * metrics]."""
    columns: list[Sequence[float] | Array] = []
    for name in names:
        columns.append(_column(items, RATIOS[name].numerator))
        denominator = RATIOS[name].denominator
        columns.append(np.ones(len(items.keys)) if denominator is None else _column(items, denominator))
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _column(items: Items, name: str) -> Sequence[float]:
    """Return a column of the items by its name."""
    if isinstance(items, AnswerItems):
        return items.columns[name]
    values: Sequence[float] = getattr(items, name)
    return values
