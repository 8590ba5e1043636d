"""The formulas of the metrics as one table, in numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _identity(ratio: Array) -> Array:
    return ratio


def _exp2(bits: Array) -> Array:
    """2 ** bits, saturating so that JSON can hold it (text without white space is one word of thousands of bits)."""
    return np.exp2(np.minimum(bits, 1000.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """`link(sum of numerator / sum of denominator)` over items; the names are columns of the item records.

    `denominator` None counts items.
    """

    description: str
    numerator: str
    denominator: str | None
    link: Callable[[Array], Array] = _identity
    higher_is_better: bool = False

    def value(self, numerator: Any, denominator: Any) -> Array:
        """The metric of sums; works on arrays of resampled sums as well."""
        return self.link(np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64))


RATIOS: dict[str, Ratio] = {
    "bits_per_byte": Ratio(
        description="Sum of -log2 p over all tokens, divided by the UTF-8 bytes of the text.",
        numerator="bits",
        denominator="bytes",
    ),
    "word_perplexity": Ratio(
        description="2 to the power of bits per word between white space.",
        numerator="bits",
        denominator="words",
        link=_exp2,
    ),
    "token_perplexity": Ratio(
        description="2 to the power of bits per token; only between models of the same vocabulary.",
        numerator="bits",
        denominator="tokens",
        link=_exp2,
    ),
    "accuracy": Ratio(
        description="Share of questions whose choice of greatest log-likelihood is right.",
        numerator="correct",
        denominator=None,
        higher_is_better=True,
    ),
    "accuracy_norm": Ratio(
        description="Share of questions whose choice of greatest log-likelihood per UTF-8 byte is right.",
        numerator="correct_norm",
        denominator=None,
        higher_is_better=True,
    ),
}
TEXT_METRICS = ("bits_per_byte", "word_perplexity", "token_perplexity")
QUESTION_METRICS = ("accuracy", "accuracy_norm")
