"""From items to the numbers of the report, with intervals and paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from minigpt.errors import MiniGPTError
from minigpt.evaluation.bootstrap import Array, interval, resampled_sums
from minigpt.evaluation.items import ItemScores, QuestionItems, TextItems
from minigpt.evaluation.ratios import QUESTION_METRICS, RATIOS, TEXT_METRICS
from minigpt.types import MetricResult

Items = TextItems | QuestionItems


def summarize(
    scores: ItemScores, *, parent: ItemScores | None = None, seed: int = 0, resamples: int = 1000
) -> tuple[MetricResult, ...]:
    """Every metric of every task with its 95 % interval from a bootstrap over documents or questions.

    Args:
        scores: The model's items.
        parent: The parent's items on the same suite; adds the difference value - parent's value, bootstrapped over the
            same resampled items. Leave it out for the parent itself.
        seed: Seeds the resamples.
        resamples: How many.

    Raises:
        MiniGPTError: the parent was measured on other documents or questions.
    """
    found: list[MetricResult] = []
    for task, items, before in _tasks(scores, parent):
        found += _results(task, items, before, seed=seed, resamples=resamples)
    return tuple(found)


def _tasks(scores: ItemScores, parent: ItemScores | None) -> Iterator[tuple[str, Items, Items | None]]:
    both: tuple[tuple[Mapping[str, Items], Mapping[str, Items]], ...] = (
        (scores.texts, parent.texts if parent else {}),
        (scores.questions, parent.questions if parent else {}),
    )
    for mine, parents in both:
        for task, items in mine.items():
            before = parents.get(task)
            if parent is not None and (before is None or before.keys != items.keys):
                raise MiniGPTError(f"The parent was measured on other items of {task!r}; evaluate it again.")
            yield task, items, before


def _results(task: str, items: Items, parent: Items | None, *, seed: int, resamples: int) -> Iterator[MetricResult]:
    from minigpt.evaluation.metrics import measure

    names = TEXT_METRICS if isinstance(items, TextItems) else QUESTION_METRICS
    columns = [columns_of(each, names) for each in (items, parent) if each is not None]
    drawn = resampled_sums(np.concatenate(columns, axis=1), seed=seed, resamples=resamples)
    for index, name in enumerate(names):
        value, values = measure(name, items), _values(name, drawn, index)
        found = interval(value, values)
        difference = None
        if parent is not None:
            parents = _values(name, drawn, len(names) + index)
            difference = interval(value - measure(name, parent), values - parents)
        yield MetricResult(
            task=task,
            metric=name,
            value=found.value,
            low=found.low,
            high=found.high,
            n=len(items.keys),
            chance=items.chance if isinstance(items, QuestionItems) else None,
            higher_is_better=RATIOS[name].higher_is_better,
            paired_difference_vs_parent=difference,
        )


def _values(name: str, sums: Array, index: int) -> Array:
    """A metric's resampled values from the `index`-th pair of summed columns."""
    return RATIOS[name].value(sums[:, 2 * index], sums[:, 2 * index + 1])


def columns_of(items: Items, names: Sequence[str]) -> Array:
    """Numerator and denominator of each metric side by side, [items, 2 * metrics]."""
    columns = []
    for name in names:
        columns.append(getattr(items, RATIOS[name].numerator))
        denominator = RATIOS[name].denominator
        columns.append(np.ones(len(items.keys)) if denominator is None else getattr(items, denominator))
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
