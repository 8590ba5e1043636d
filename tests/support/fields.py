"""Reports with text of several kinds: own sources, other sources, new wording, general text that nothing trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minigpt.results import BuildReport, Interval, MetricResult
from tests.support.reports import metric

# Half-width of every paired interval made here.
WIDTH = 0.01


def with_task(
    report: BuildReport,
    task: str,
    parent: float,
    ours: float,
    *,
    tuned: float | None = None,
    name: str = "bits_per_byte",
    n: int = 60,
    **changes: Any,
) -> BuildReport:
    """The report with one more task: the parent has `parent`, every pruned model `ours`, both with paired intervals.

    A result of the same task and metric is replaced.
    """
    stages = []
    for stage in report.stages:
        first = stage.stage == "parent"
        value = parent if first else (parent if tuned is None else tuned) if stage.stage == "parent_tuned" else ours
        result = metric(task, name, value, n=n, paired=None if first else _around(value - parent))
        if not first and tuned is not None:
            low, high = value - tuned - WIDTH, value - tuned + WIDTH
            result = replace(result, paired_difference_vs_tuned=Interval(value=value - tuned, low=low, high=high))
        others = tuple(other for other in stage.metrics if (other.task, other.metric) != (task, name))
        stages.append(replace(stage, metrics=(*others, _with(result, changes))))
    return replace(report, stages=tuple(stages))


def _around(difference: float) -> tuple[float, float, float]:
    """A difference with its interval."""
    return difference, difference - WIDTH, difference + WIDTH


def _with(result: MetricResult, changes: dict[str, Any]) -> MetricResult:
    """The result with some fields changed."""
    return replace(result, **changes)
