"""Summary of item scores as the metrics of the report, with intervals and paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from minigpt.errors import MiniGPTError
from minigpt.evaluation.bootstrap import Array, interval, resampled_sums
from minigpt.evaluation.items import ItemScores, QuestionItems, RecitationItems, TextItems
from minigpt.evaluation.ratios import QUESTION_METRICS, RATIOS, RECITATION_METRICS, TEXT_METRICS
from minigpt.results import MetricResult

Items = TextItems | QuestionItems | RecitationItems
# Metrics of each kind of items.
METRICS_OF: Mapping[type[Items], tuple[str, ...]] = {
    TextItems: TEXT_METRICS,
    QuestionItems: QUESTION_METRICS,
    RecitationItems: RECITATION_METRICS,
}


def summarize(
    scores: ItemScores, *, parent: ItemScores | None = None, seed: int = 0, resamples: int = 1000
) -> tuple[MetricResult, ...]:
    """Compute every metric of every task with its 95 % interval from a bootstrap over documents or questions.

    Args:
        scores: Item scores of the model.
        parent: Item scores of the parent on the same suite. They add the paired difference value - parent's value,
            bootstrapped over the same resampled items. Leave it out for the parent itself.
        seed: Seed of the resamples.
        resamples: Number of resamples.

    Raises:
        MiniGPTError: The parent was measured on other documents or questions.
    """
    results: list[MetricResult] = []
    for task, items, parent_items in _tasks(scores, parent):
        results += _results(task, items, parent_items, seed=seed, resamples=resamples)
    return tuple(results)


def _tasks(scores: ItemScores, parent: ItemScores | None) -> Iterator[tuple[str, Items, Items | None]]:
    """Yield every task with the items of the model and of the parent."""
    pairs: tuple[tuple[Mapping[str, Items], Mapping[str, Items]], ...] = (
        (scores.texts, parent.texts if parent else {}),
        (scores.questions, parent.questions if parent else {}),
        (scores.recitations, parent.recitations if parent else {}),
    )
    for model_tasks, parent_tasks in pairs:
        for task, items in model_tasks.items():
            parent_items = parent_tasks.get(task)
            if parent is not None and (parent_items is None or parent_items.keys != items.keys):
                raise MiniGPTError(f"The parent was measured on other items of {task!r}; evaluate it again.")
            yield task, items, parent_items


def _results(task: str, items: Items, parent: Items | None, *, seed: int, resamples: int) -> Iterator[MetricResult]:
    """Yield the metrics of one task."""
    from minigpt.evaluation.metrics import measure

    names = METRICS_OF[type(items)]
    columns = [columns_of(model_items, names) for model_items in (items, parent) if model_items is not None]
    resampled = resampled_sums(np.concatenate(columns, axis=1), seed=seed, resamples=resamples)
    for index, name in enumerate(names):
        value, values = measure(name, items), _values(name, resampled, index)
        bounds = interval(value, values)
        difference = None
        if parent is not None:
            parent_values = _values(name, resampled, len(names) + index)
            difference = interval(value - measure(name, parent), values - parent_values)
        yield MetricResult(
            task=task,
            metric=name,
            value=bounds.value,
            low=bounds.low,
            high=bounds.high,
            n=len(items.keys),
            chance=items.chance if isinstance(items, QuestionItems) else None,
            higher_is_better=RATIOS[name].higher_is_better,
            paired_difference_vs_parent=difference,
        )


def _values(name: str, sums: Array, index: int) -> Array:
    """Compute a metric's resampled values from the `index`-th pair of summed columns."""
    return RATIOS[name].value(sums[:, 2 * index], sums[:, 2 * index + 1])


def columns_of(items: Items, names: Sequence[str]) -> Array:
    """Set the numerator and denominator of each metric side by side, [items, 2 * metrics]."""
    columns = []
    for name in names:
        columns.append(getattr(items, RATIOS[name].numerator))
        denominator = RATIOS[name].denominator
        columns.append(np.ones(len(items.keys)) if denominator is None else getattr(items, denominator))
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
