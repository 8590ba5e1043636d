"""The metrics of the report as `evaluate.Metric` classes, without Hub, network or files.

Every metric is a link function of a ratio of sums, of which intervals are made: `predictions` holds the numerators and
`references` the denominators (or the right answers), one entry for each item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np

from minigpt.evaluation.items import QuestionItems, RecitationItems, TextItems
from minigpt.evaluation.ratios import RATIOS

_NUMBERS = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int64")})
_ANSWERS = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})


class RatioMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric of the table `RATIOS`: `link(sum of predictions / sum of references)`.

    Attributes:
        metric: Key of the metric in `RATIOS`.
        columns: Columns of the item records that serve as predictions and references.
        inputs: Description of predictions and references for the library.
        features: Types of predictions and references for the library.
    """

    metric: ClassVar[str]
    columns: ClassVar[tuple[str, str]]
    inputs: ClassVar[str]
    features: ClassVar[datasets.Features] = _NUMBERS

    def __init__(self, **options: Any) -> None:
        """Keep the items in memory; otherwise the library would write them to its cache folder."""
        super().__init__(keep_in_memory=True, **options)

    def _info(self) -> evaluate.MetricInfo:
        """Describe the metric to the library."""
        return evaluate.MetricInfo(
            description=RATIOS[self.metric].description,
            citation="",
            inputs_description=self.inputs,
            features=self.features,
            reference_urls=["https://github.com/EleutherAI/lm-evaluation-harness"],
        )

    def _compute(self, predictions: Sequence[float], references: Sequence[int]) -> dict[str, float]:
        """Compute the metric for the library."""
        return {self.metric: float(RATIOS[self.metric].value(*self._sums(predictions, references)))}

    def _sums(self, predictions: Sequence[float], references: Sequence[int]) -> tuple[float, float]:
        """Sum numerators and denominators over the items."""
        return float(np.sum(predictions)), float(np.sum(references))


class BitsPerByte(RatioMetric):
    """Bits needed for each UTF-8 byte of text; comparable between tokenizers."""

    metric = "bits_per_byte"
    columns = ("bits", "bytes")
    inputs = "predictions: bits (-log2 p) of each document; references: its UTF-8 bytes."


class WordPerplexity(RatioMetric):
    """Perplexity for each word between white space; comparable between tokenizers."""

    metric = "word_perplexity"
    columns = ("bits", "words")
    inputs = "predictions: bits (-log2 p) of each document; references: its words."


class TokenPerplexity(RatioMetric):
    """Perplexity for each token; comparable only between models with the same tokenizer."""

    metric = "token_perplexity"
    columns = ("bits", "tokens")
    inputs = "predictions: bits (-log2 p) of each document; references: its tokens."


class Recitation(RatioMetric):
    """Share of a passage's next characters that greedy decoding gives back before its first error."""

    metric = "recitation"
    columns = ("recited", "characters")
    inputs = "predictions: characters recited of each document; references: characters of its continuations."


class MultipleChoiceAccuracy(RatioMetric):
    """Share of questions whose likeliest choice is the right one."""

    metric = "accuracy"
    columns = ("picks", "answers")
    inputs = "predictions: the index of the choice taken for each question; references: the index of the right one."
    features = _ANSWERS

    def _sums(self, predictions: Sequence[float], references: Sequence[int]) -> tuple[float, float]:
        """Count the right choices and the questions."""
        return float(np.equal(predictions, references).sum()), float(len(references))


class MultipleChoiceAccuracyNorm(MultipleChoiceAccuracy):
    """Share of questions whose choice with the greatest log-likelihood per UTF-8 byte is the right one."""

    metric = "accuracy_norm"
    columns = ("picks_norm", "answers")


def measure(metric: str, items: TextItems | QuestionItems | RecitationItems) -> float:
    """Compute one metric over all items with its `evaluate.Metric` class."""
    metric_class = METRICS[metric]
    predictions, references = (getattr(items, column) for column in metric_class.columns)
    return float(metric_class().compute(predictions=predictions, references=references)[metric])


METRICS: dict[str, type[RatioMetric]] = {
    metric_class.metric: metric_class
    for metric_class in (
        BitsPerByte,
        WordPerplexity,
        TokenPerplexity,
        Recitation,
        MultipleChoiceAccuracy,
        MultipleChoiceAccuracyNorm,
    )
}
