"""Table of a report's metrics: one row for each task and metric, one column for each stage."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from minigpt.metrics import ANSWER_METRICS, QUESTION_METRICS
from minigpt.report.figures import (
    FEW,
    RECITATION,
    SEEN,
    TOO_REPEATED,
    Verdict,
    at_chance,
    effective_documents,
    few_items,
    final_stage,
    metric_keys,
    metric_of,
    same_vocabulary,
    verdict_vs_parent,
    verdict_vs_tuned,
)
from minigpt.report.tasks import is_seen, text_name
from minigpt.report.text import change, clean, interval, number, stage_title
from minigpt.results import BuildReport, MetricResult, StageReport

# Widths in characters below which the table leaves columns out.
WIDEST = 104
WIDE = 90
NARROW = 66
NARROWEST = 54
STYLES: dict[Verdict, str] = {
    "better": "green",
    "worse": "red",
    "not distinguishable": "dim",
    "too few to tell": "yellow",
    "repeated wording": "yellow",
}
SHORT: dict[Verdict, str] = {
    "better": "better",
    "worse": "worse",
    "not distinguishable": "unclear",
    "too few to tell": "too few",
    "repeated wording": "repeated",
}


def metrics_table(report: BuildReport, width: int) -> Table:
    """Draw the metrics of every stage, and compare the final stage with the parent and the tuned parent.

    Bits per byte of every text come first, then the questions, then the perplexities; the perplexity for each token
    only where the vocabulary stayed. Perplexities are compared by ratios (`0.901×`), scores by differences (`+0.021`).
    A narrow terminal leaves columns out: below :data:`WIDEST` the distilled twin; below :data:`WIDE` the pruned model
    that is not healed yet, if there are more than three stages; below :data:`NARROW` also the tuned parent; below
    :data:`NARROWEST` also the comparisons. Parent and final model are always shown.

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
    table.add_column("text or questions", overflow="fold", min_width=17 if width >= NARROWEST else 12)
    for stage in stages:
        table.add_column(stage_title(stage.stage), justify="right", no_wrap=True)
    others = (parent, tuned) if width >= NARROW else (parent,) if width >= NARROWEST else ()
    against = [other for other in others if other and other is not final]
    for other in against:
        table.add_column(
            {"parent": "vs parent", "parent_tuned": "vs tuned"}[other.stage], justify="right", no_wrap=True
        )
    heading = None
    for task, metric in metric_keys(report, stages):
        # Recitation has a sentence of its own; between different tokens a perplexity for each token says nothing.
        if metric == RECITATION or (metric == "token_perplexity" and not same_vocabulary(report)):
            continue
        results = [metric_of(stage, task, metric) for stage in stages]
        ours = metric_of(final, task, metric)
        title, name = _labels(report, task, metric, results)
        if title != heading:
            heading = title
            table.add_row(title)
        table.add_row(
            name,
            *(_cell(result, bold=stage is final) for stage, result in zip(stages, results, strict=True)),
            *(_against(report, ours, other) for other in against),
        )
    return table


def _columns(report: BuildReport, width: int) -> list[StageReport]:
    """Choose the stages that fit the width."""
    final = final_stage(report)
    if width < NARROW:
        return [stage for stage in report.stages if stage.stage == "parent" or stage is final]
    dispensable: list[str] = ["parent_distilled"] if width < WIDEST else []
    if width < WIDE and len(report.stages) > 3:
        dispensable.append("pruned")
    return [stage for stage in report.stages if stage is final or stage.stage not in dispensable]


def _labels(report: BuildReport, task: str, metric: str, results: list[MetricResult | None]) -> tuple[Text, Text]:
    """Write the heading of a row and its name: texts stand below their metric, accuracies below their questions."""
    items = max((result.n for result in results if result), default=0)
    subject = Text.assemble(
        (clean(task), "cyan"), (" seen" if is_seen(task) else "", "yellow"), (f" n={items:,}", "dim")
    )
    if metric in QUESTION_METRICS or metric in ANSWER_METRICS:
        return subject, _score_name(metric, results)
    lines = [text_name(task, general_share=report.general_share), _effective(results, items)]
    for line in lines:
        subject.append(f"\n  {line}" if line else "", style="dim")
    return Text(metric.replace("_", " "), style="bold"), Text("  ") + subject


def _effective(results: list[MetricResult | None], items: int) -> str:
    """Write the effective number of documents where it is too small for comfort, of the models that read them all."""
    whole = (result for result in results if result and result.n == items)
    numbers = [number for result in whole if (number := effective_documents(result)) is not None]
    return f"effective n {numbers[0]:.0f}" if numbers else ""


def _score_name(metric: str, results: list[MetricResult | None]) -> Text:
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
    unequal = any(effective_documents(result) is not None for result in results)
    parts = {
        "bits per byte, perplexity: low is good": bool(results),
        "intervals are over documents or questions, not over training again": bool(results),
        "unclear: not distinguishable at 95 %": "not distinguishable" in verdicts,
        "too few: too few documents or questions to tell": "too few to tell" in verdicts,
        f"repeated: over {TOO_REPEATED:.0%} of the wording was trained on": "repeated wording" in verdicts,
        FEW: few_items(results),
        f"seen: {SEEN}, not held out": any(is_seen(result.task) for result in results),
        "°: the interval holds the score of guessing": any(at_chance(result) for result in results),
        "pruned: measured on a part of the texts and questions": any(
            stage.share < 1 for stage in _columns(report, width)
        ),
        "no tuned parent: the preset skipped it": no_tuned,
        "effective n: the documents differ in size and count as so many equal ones": unequal,
        "a wider terminal shows all stages": width < NARROW and len(report.stages) > 2,
    }
    return Text("; ".join(part for part, used in parts.items() if used), style="dim")
