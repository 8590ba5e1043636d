"""Comparison of several builds as plain data, which `--json` prints and gates read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigpt.errors import ConfigError
from minigpt.report.figures import (
    Verdict,
    final_stage,
    metric_of,
    ratio,
    reading_order,
    same_vocabulary,
    verdict_vs_parent,
    verdict_vs_tuned,
)
from minigpt.results import BuildReport, MetricResult

# Stands for each model's own domain where models of several domains are compared.
OWN = "own domain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One column of a comparison: the model that a build produced. `kept` is its share of the parent's parameters."""

    name: str
    domain: str
    base_model: str
    method: str
    preset: str
    stage: str
    parameters: int
    bytes: int
    kept: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model's result, compared with the first model's and with that of its own parent.

    Attributes:
        task: Task that was measured.
        value: The result.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        n: Documents or questions measured.
        ratio: Value divided by the first model's; None where the two numbers do not measure the same thing.
        difference: Value minus the first model's; None in the same cases.
        why_not: Reason why `ratio` and `difference` are None.
        vs_parent: Ratio to the model's own parent, which is meaningful across domains.
        vs_tuned: Ratio to the model's own tuned parent; None where there is none.
        verdict: Paired verdict against the model's own parent.
        verdict_vs_tuned: Paired verdict against the model's own tuned parent.
    """

    task: str
    value: float
    low: float
    high: float
    n: int
    ratio: float | None
    difference: float | None
    why_not: str | None
    vs_parent: float | None
    vs_tuned: float | None
    verdict: Verdict | None
    verdict_vs_tuned: Verdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric of one task across the models; a cell that was not measured is None.

    Where the models have several domains, `task` says `own domain`, and the cells name the actual tasks.
    """

    task: str
    metric: str
    higher_is_better: bool
    chance: float | None
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Models and their metrics; all models are compared with the first."""

    models: tuple[Model, ...]
    rows: tuple[Row, ...]


def compare(reports: Sequence[tuple[str, BuildReport]]) -> Comparison:
    """Line up the final stages of several builds.

    Nothing is refused: numbers over different texts, questions or tokenizers stand in the table too, but without a
    ratio to the first model.

    Args:
        reports: A name to show and a report for each model; the first is the reference.

    Raises:
        ConfigError: No report was given.
    """
    if not reports:
        raise ConfigError("Nothing to compare: name at least one build folder, report.json or catalog id.")
    mixed = len({report.domain for _, report in reports}) > 1
    keys = {
        (_alias(report, result.task) if mixed else result.task, result.metric)
        for _, report in reports
        for result in final_stage(report).metrics
    }
    domain = OWN if mixed else reports[0][1].domain
    ordered = sorted(keys, key=lambda key: reading_order(domain, *key))
    rows = (_row(task, metric, [report for _, report in reports]) for task, metric in ordered)
    return Comparison(models=tuple(_model(name, report) for name, report in reports), rows=tuple(rows))


def comparable(ours: BuildReport, first: BuildReport, result: MetricResult, other: MetricResult) -> str | None:
    """Check whether two results measure the same thing, so that one may be divided by the other.

    Equal task fingerprints prove it. Where a report has no fingerprint, the numbers of items must agree.

    Args:
        ours: Report of the first result.
        first: Report of the second result.
        result: The result to compare.
        other: The result to compare it with.

    Returns:
        The reason why they cannot be compared, or None if they can.
    """
    if result.task != other.task:
        return f"measured on {result.task}, not {other.task}"
    prints = ours.fingerprints.get(result.task), first.fingerprints.get(other.task)
    if None not in prints and prints[0] != prints[1]:
        return "other held-out data"
    if result.n != other.n:
        return f"{result.n} items, not {other.n}"
    if result.metric == "token_perplexity" and not _same_tokenizer(ours, first):
        return "other tokenizer"
    return None


def _same_tokenizer(ours: BuildReport, first: BuildReport) -> bool:
    """Check that two models count the same tokens; without fingerprints, both must be uncut models of one base."""
    prints = ours.fingerprints.get("vocabulary"), first.fingerprints.get("vocabulary")
    if None not in prints:
        return prints[0] == prints[1]
    untouched = all(report.shape_before.vocab_size == report.shape_after.vocab_size for report in (ours, first))
    return untouched and ours.base_model == first.base_model


def _model(name: str, report: BuildReport) -> Model:
    """Describe the model that a build produced."""
    final, parent = final_stage(report), report.stage("parent")
    return Model(
        name=name,
        domain=report.domain,
        base_model=report.base_model,
        method=report.method,
        preset=report.preset,
        stage=final.stage,
        parameters=final.parameters,
        bytes=final.bytes,
        kept=final.parameters / parent.parameters if parent and parent.parameters else None,
        seconds=report.seconds,
    )


def _alias(report: BuildReport, task: str) -> str:
    """Replace the report's own domain in a task by `own domain`, so that builds of several domains share rows."""
    head, slash, tail = task.partition("/")
    return OWN + slash + tail if head == report.domain else task


def _actual(report: BuildReport, task: str) -> str:
    """Undo `_alias`."""
    return report.domain + task.removeprefix(OWN) if task.startswith(OWN) else task


def _row(task: str, metric: str, reports: Sequence[BuildReport]) -> Row:
    """Compare one metric of one task across the models."""
    results = [metric_of(final_stage(report), _actual(report, task), metric) for report in reports]
    measured = next(result for result in results if result is not None)
    cells = (
        _cell(report, result, reports[0], results[0]) if result else None
        for report, result in zip(reports, results, strict=True)
    )
    return Row(
        task=task,
        metric=metric,
        higher_is_better=measured.higher_is_better,
        chance=measured.chance,
        cells=tuple(cells),
    )


def _cell(report: BuildReport, result: MetricResult, first: BuildReport, reference: MetricResult | None) -> Cell:
    """Compare one result with the first model's, and with those of the model's own parent and tuned parent."""
    why_not = comparable(report, first, result, reference) if reference else "the first model was not measured on it"
    final, parent, tuned = final_stage(report), report.stage("parent"), report.stage("parent_tuned")
    verdict = verdict_vs_parent(report, result) if final is not parent else None
    same_unit = result.metric != "token_perplexity" or same_vocabulary(report)
    return Cell(
        task=result.task,
        value=result.value,
        low=result.low,
        high=result.high,
        n=result.n,
        ratio=ratio(result, reference) if why_not is None else None,
        difference=result.value - reference.value if reference and why_not is None else None,
        why_not=why_not,
        vs_parent=ratio(result, metric_of(parent, result.task, result.metric)) if verdict else None,
        vs_tuned=ratio(result, metric_of(tuned, result.task, result.metric))
        if same_unit and final is not tuned
        else None,
        verdict=verdict,
        verdict_vs_tuned=verdict_vs_tuned(report, result),
    )
