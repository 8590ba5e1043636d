"""Rows of the page's tables: ratios with pictures of their intervals, and the values of every metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from minigpt.report.figures import (
    HEADLINE,
    RECITATION,
    Verdict,
    at_chance,
    effective_documents,
    final_stage,
    metric_keys,
    metric_of,
    same_vocabulary,
    verdict_vs_parent,
    verdict_vs_tuned,
    verdict_vs_twin,
)
from minigpt.report.page.charts import Ratio, scale_of, span
from minigpt.report.tasks import is_seen, text_name
from minigpt.report.text import change, interval, number, stage_title
from minigpt.results import BuildReport, Interval, MetricResult, StageReport


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioRow:
    """One text, and the final model's bits per byte on it relative to one other model.

    Attributes:
        task: The text.
        place: What the text is, e.g. `other sources`.
        against: The other model.
        ratio: The ratio and its interval.
        n: Documents, with their effective number where it is small.
        verdict: Verdict of the paired interval.
        picture: The interval, drawn.
        source: Place of the figures in the report.
    """

    task: str
    place: str
    against: str
    ratio: Ratio
    n: str
    verdict: Verdict | None
    picture: Markup
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRow:
    """One metric of one task: a cell for each shown stage, and the comparisons with the controls."""

    task: str
    note: str
    metric: str
    cells: tuple[tuple[str, str], ...]
    comparisons: tuple[tuple[str, str, str], ...]
    source: str


def ratio_rows(report: BuildReport, scale: tuple[float, float] | None = None) -> list[RatioRow]:
    """List the final model's ratios on every text, to the parent and both trained controls, with pictures of one scale.

    Args:
        report: Report of the build.
        scale: Ends of the range of the pictures; None for one that suits this report.
    """
    final = final_stage(report)
    parts = []
    for task, metric in metric_keys(report, [final]):
        ours = metric_of(final, task, metric)
        if metric != HEADLINE or ours is None:
            continue
        judged = (
            (report.stage("parent"), ours.paired_difference_vs_parent, verdict_vs_parent(report, ours)),
            (report.stage("parent_tuned"), ours.paired_difference_vs_tuned, verdict_vs_tuned(report, ours)),
            (report.stage("parent_distilled"), ours.paired_difference_vs_distilled, verdict_vs_twin(report, ours)),
        )
        for stage, paired, verdict in judged:
            if stage and (ratio := _ratio(ours, metric_of(stage, task, metric), paired)):
                parts.append((ours, stage, ratio, verdict))
    shown = scale or scale_of([ratio for _, _, ratio, _ in parts])
    return [_ratio_row(report, *part, shown) for part in parts]


def _ratio(ours: MetricResult, other: MetricResult | None, paired: Interval | None) -> Ratio | None:
    """Divide by the other model's value, with the interval of the paired difference; None without a pair."""
    if other is None or paired is None or other.value <= 0:
        return None
    return Ratio(value=ours.value / other.value, low=1 + paired.low / other.value, high=1 + paired.high / other.value)


def _ratio_row(
    report: BuildReport,
    ours: MetricResult,
    stage: StageReport,
    ratio: Ratio,
    verdict: Verdict | None,
    scale: tuple[float, float],
) -> RatioRow:
    """Fill the row of one ratio."""
    against = stage_title(stage.stage)
    title = f"{ours.task} against the {against}: {ratio.value:.3f}, 95 % {ratio.low:.3f} to {ratio.high:.3f}"
    return RatioRow(
        task=ours.task,
        place=text_name(ours.task, general_share=report.general_share),
        against=against,
        ratio=ratio,
        n=_items(ours),
        verdict=verdict,
        picture=span(ratio, scale, title),
        source=_source(report, ours),
    )


def value_rows(report: BuildReport, stages: Sequence[StageReport]) -> list[ValueRow]:
    """List every metric of the stages that are shown, in the order a reader wants them.

    Args:
        report: Report of the build.
        stages: Stages with a column.
    """
    rows = []
    for task, metric in metric_keys(report, stages):
        ours = metric_of(final_stage(report), task, metric)
        if ours is None or (metric == "token_perplexity" and not same_vocabulary(report)):
            continue
        rows.append(
            ValueRow(
                task=task,
                note=_note(report, ours),
                metric=metric.replace("_", " "),
                cells=tuple(_cell(metric_of(stage, task, metric)) for stage in stages),
                comparisons=tuple(_comparisons(report, ours)),
                source=_source(report, ours),
            )
        )
    return rows


def _note(report: BuildReport, result: MetricResult) -> str:
    """Write what a task is, how many items it has, and the score of guessing."""
    parts = [text_name(result.task, general_share=report.general_share) if result.metric == HEADLINE else ""]
    parts += ["passages" if result.metric == RECITATION else "", "seen in training" if is_seen(result.task) else ""]
    parts += [f"n {_items(result)}", f"chance {result.chance:.3f}" if result.chance is not None else ""]
    return ", ".join(part for part in parts if part)


def _items(result: MetricResult) -> str:
    """Write the number of items, with the effective number where it is small."""
    effective = effective_documents(result)
    return f"{result.n:,}" if effective is None else f"{result.n:,}, effective {effective:.0f}"


def _cell(result: MetricResult | None) -> tuple[str, str]:
    """Write a value and its interval; `°` marks a score that is not distinguishable from guessing."""
    if result is None:
        return "–", ""
    return number(result.value) + ("°" if at_chance(result) else ""), interval(result.low, result.high)


def _comparisons(report: BuildReport, ours: MetricResult) -> list[tuple[str, str, str]]:
    """Compare the final model with the parent and both trained controls: name, change and verdict."""
    final = final_stage(report)
    compared: list[tuple[str, str, str]] = []
    judges = (("parent", verdict_vs_parent), ("parent_tuned", verdict_vs_tuned), ("parent_distilled", verdict_vs_twin))
    for name, judge in judges:
        stage = next((stage for stage in report.stages if stage.stage == name), None)
        other = metric_of(stage, ours.task, ours.metric)
        if stage is not None and stage is not final and other is not None:
            compared.append((stage_title(name), change(ours, other), judge(report, ours) or ""))
    return compared


def _source(report: BuildReport, result: MetricResult) -> str:
    """Name the place of a figure in `report.json`."""
    return f"report.json: stages, {final_stage(report).stage}, {result.task}, {result.metric}"
