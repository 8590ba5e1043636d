"""Summary of item scores as the metrics of the report, with intervals and paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from minigpt.errors import MiniGPTError
from minigpt.evaluation.intervals import effective_number
from minigpt.evaluation.items import AnswerItems, Items, ItemScores, QuestionItems, RecitationItems, TextItems
from minigpt.evaluation.paired import averaged, metric_interval, paired
from minigpt.evaluation.ratios import RATIOS, RECITATION_METRICS, TEXT_METRICS, Array, columns_of
from minigpt.metrics import ANSWER_METRICS, QUESTION_METRICS
from minigpt.results import Interval, MetricResult

# Metrics of each kind of items.
METRICS_OF: Mapping[type[Items], tuple[str, ...]] = {
    TextItems: TEXT_METRICS,
    QuestionItems: QUESTION_METRICS,
    RecitationItems: RECITATION_METRICS,
    AnswerItems: ANSWER_METRICS,
}


def summarize(scores: ItemScores, *, parent: ItemScores | None = None) -> tuple[MetricResult, ...]:
    """Compute every metric of every task with its 95 % interval over documents or questions.

    Args:
        scores: Item scores of the model.
        parent: Item scores of the parent on the same suite. They add the paired difference value - parent's value.
            Leave it out for the parent itself.

    Raises:
        MiniGPTError: The parent was measured on other documents or questions.
    """
    results: list[MetricResult] = []
    for task, items, parent_items in _tasks(scores, parent):
        results += _results(task, items, parent_items)
    return tuple(results)


def _tasks(scores: ItemScores, parent: ItemScores | None) -> Iterator[tuple[str, Items, Items | None]]:
    """Yield every task with the items of the model and of the parent."""
    pairs: tuple[tuple[Mapping[str, Items], Mapping[str, Items]], ...] = (
        (scores.texts, parent.texts if parent else {}),
        (scores.questions, parent.questions if parent else {}),
        (scores.answers, parent.answers if parent else {}),
        (scores.recitations, parent.recitations if parent else {}),
    )
    for model_tasks, parent_tasks in pairs:
        for task, items in model_tasks.items():
            parent_items = parent_tasks.get(task)
            if parent is not None and (parent_items is None or parent_items.keys != items.keys):
                raise MiniGPTError(f"The parent was measured on other items of {task!r}; evaluate it again.")
            yield task, items, parent_items


def _results(task: str, items: Items, parent: Items | None) -> Iterator[MetricResult]:
    """Yield the metrics of one task."""
    for name in METRICS_OF[type(items)]:
        if isinstance(items, AnswerItems) and name not in items.columns:
            continue
        columns, value = averaged([items], name), _value(name, items)
        bounds = metric_interval(columns, name)
        difference = ratio = None
        if parent is not None:
            baseline = averaged([parent], name)
            difference = replace(paired(columns, baseline, name), value=value - _value(name, parent))
            ratio = _ratio(name, columns, baseline)
        yield MetricResult(
            task=task,
            metric=name,
            value=value,
            low=bounds.low,
            high=bounds.high,
            n=len(items.keys),
            effective_n=_effective(items),
            chance=_chance(name, items),
            higher_is_better=RATIOS[name].higher_is_better,
            paired_difference_vs_parent=difference,
            paired_ratio_vs_parent=ratio,
        )


def _ratio(name: str, ours: Array, baseline: Array) -> Interval | None:
    """Compute the paired ratio of two models; None at the ends of a scale, and where its interval has no end.

    A perplexity per word of text with hardly any words is such a case.
    """
    sums = [columns.sum(axis=0) for columns in (ours, baseline)]
    if any(top <= 0 or (RATIOS[name].is_share and top >= bottom) for top, bottom in sums):
        return None
    if not all(np.isfinite(RATIOS[name].value(*pair)) for pair in sums):
        return None
    ratio = paired(ours, baseline, name, how="ratio")
    return ratio if np.isfinite([ratio.value, ratio.low, ratio.high]).all() else None


def _value(name: str, items: Items) -> float:
    """Compute a metric over all items, by its class of the metrics library where there is one."""
    from minigpt.evaluation.metrics import measure

    if isinstance(items, AnswerItems):
        return float(RATIOS[name].value(*columns_of(items, (name,)).sum(axis=0)))
    return measure(name, items)


def _chance(name: str, items: Items) -> float | None:
    """Give the score of guessing; None for a metric that has none."""
    if isinstance(items, AnswerItems):
        return items.guessed(name)
    return items.chance if isinstance(items, QuestionItems) else None


def _effective(items: Items) -> float:
    """Count how many documents of equal size the text is worth, or the questions."""
    if isinstance(items, (QuestionItems, AnswerItems)):
        return float(len(items.keys))
    sizes = items.bytes if isinstance(items, TextItems) else items.characters
    return effective_number(np.asarray(sizes, dtype=np.float64))
