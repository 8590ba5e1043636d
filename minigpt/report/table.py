"""Table of a report's metrics: one row for each task and metric, one column for each stage."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from minigpt.report.figures import (
    FEW,
    SEEN,
    Verdict,
    at_chance,
    few_items,
    final_stage,
    is_seen,
    metric_keys,
    metric_of,
    same_vocabulary,
    verdict_vs_parent,
    verdict_vs_tuned,
)
from minigpt.report.text import change, clean, interval, number
from minigpt.results import BuildReport, MetricResult, StageReport

# Widths in characters below which the table leaves columns out.
WIDE = 90
NARROW = 66
NARROWEST = 54
STYLES: dict[Verdict, str] = {
    "better": "green",
    "worse": "red",
    "not distinguishable": "dim",
    "too few to tell": "yellow",
}
NOT_COMPARABLE = "other\ntokenizer"
SHORT: dict[Verdict, str] = {
    "better": "better",
    "worse": "worse",
    "not distinguishable": "unclear",
    "too few to tell": "too few",
}


def metrics_table(report: BuildReport, width: int) -> Table:
    """Draw the metrics of every stage, and compare the final stage with the parent and the tuned parent.

    Perplexities are compared by ratios (`0.901×`), scores by differences (`+0.021`). A narrow terminal leaves columns
    out: below :data:`WIDE` the pruned model that is not healed yet, if all four stages are there; below :data:`NARROW`
    also the tuned parent; below :data:`NARROWEST` also the comparisons. Parent and final model are always shown.

    Args:
        report: Report of the build.
        width: Width of the terminal in characters.
    """
    stages = _columns(report, width)
    parent, tuned = report.stage("parent"), report.stage("parent_tuned")
    final = final_stage(report)
    table = Table(
        box=None, padding=(0, 1, 0, 0), header_style="dim", caption_justify="left", caption=_caption(report, width)
    )
    table.add_column("task", overflow="fold", min_width=17 if width >= NARROWEST else 12)
    for stage in stages:
        table.add_column(stage.stage.replace("_", " "), justify="right", no_wrap=True)
    others = (parent, tuned) if width >= NARROW else (parent,) if width >= NARROWEST else ()
    against = [other for other in others if other and other is not final]
    for other in against:
        table.add_column(
            {"parent": "vs parent", "parent_tuned": "vs tuned"}[other.stage], justify="right", no_wrap=True
        )
    heading = None
    for task, metric in metric_keys(report, stages):
        results = [metric_of(stage, task, metric) for stage in stages]
        ours = metric_of(final, task, metric)
        if task != heading:
            heading = task
            table.add_row(_heading(task, results))
        table.add_row(
            _name(metric, results),
            *(_cell(result, bold=stage is final) for stage, result in zip(stages, results, strict=True)),
            *(_against(report, ours, other) for other in against),
        )
    return table


def _columns(report: BuildReport, width: int) -> list[StageReport]:
    """Choose the stages that fit the width."""
    final = final_stage(report)
    if width < NARROW:
        return [stage for stage in report.stages if stage.stage == "parent" or stage is final]
    crowded = width < WIDE and len(report.stages) > 3 and final.stage != "pruned"
    return [stage for stage in report.stages if not (crowded and stage.stage == "pruned")]


def _heading(task: str, results: list[MetricResult | None]) -> Text:
    """Write the task and how many documents or questions were measured."""
    items = max((result.n for result in results if result), default=0)
    return Text.assemble((clean(task), "cyan"), (" seen" if is_seen(task) else "", "yellow"), (f" n={items:,}", "dim"))


def _name(metric: str, results: list[MetricResult | None]) -> Text:
    """Write the metric, and below it the score of guessing where there is one."""
    text = Text(f"  {metric.replace('_', ' ')}")
    chance = next((result.chance for result in results if result and result.chance is not None), None)
    if chance is not None:
        text.append(f"\n  chance {chance:.3f}", style="dim")
    return text


def _cell(result: MetricResult | None, *, bold: bool) -> Text:
    """Write a value and its interval; `°` marks a result that is not distinguishable from guessing."""
    if result is None:
        return Text("–", style="dim")
    mark = "°" if at_chance(result) else ""
    return Text.assemble(
        (number(result.value) + mark, "bold" if bold else ""), (f"\n{interval(result.low, result.high)}", "dim")
    )


def _against(report: BuildReport, ours: MetricResult | None, other: StageReport) -> Text:
    """Write ratio or difference, and the verdict of the paired intervals where there are any."""
    baseline = metric_of(other, ours.task, ours.metric) if ours else None
    if ours is None or baseline is None:
        return Text("–", style="dim")
    if ours.metric == "token_perplexity" and not same_vocabulary(report):
        return Text(NOT_COMPARABLE, style="dim")
    text = Text(change(ours, baseline))
    verdict = verdict_vs_parent(report, ours) if other.stage == "parent" else verdict_vs_tuned(report, ours)
    if verdict:
        text.append(f"\n{SHORT[verdict]}", style=STYLES[verdict])
    return text


def _caption(report: BuildReport, width: int) -> Text:
    """Explain the marks that this table uses."""
    results = [result for stage in report.stages for result in stage.metrics]
    final = final_stage(report)
    verdicts = {judge(report, result) for result in final.metrics for judge in (verdict_vs_parent, verdict_vs_tuned)}
    no_tuned = report.stage("parent_tuned") is None and final.stage != "parent"
    retokenized = any(result.metric == "token_perplexity" for result in final.metrics) and not same_vocabulary(report)
    parts = {
        "unclear: not distinguishable at 95 %": "not distinguishable" in verdicts,
        "too few: too few documents or questions to tell": "too few to tell" in verdicts,
        "other tokenizer: not comparable": retokenized and final.stage != "parent" and width >= NARROWEST,
        FEW: few_items(results),
        f"seen: {SEEN}, not held out": any(is_seen(result.task) for result in results),
        "°: the interval holds the score of guessing": any(at_chance(result) for result in results),
        "pruned: measured on a part of the texts and questions": any(
            stage.share < 1 for stage in _columns(report, width)
        ),
        "no tuned parent: the preset skipped it": no_tuned,
        "a wider terminal shows all stages": width < NARROW and len(report.stages) > 2,
    }
    return Text("; ".join(part for part, used in parts.items() if used), style="dim")
