"""Several builds side by side: as data, which `--json` prints and gates read, and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigpt.errors import ConfigError
from minigpt.report.figures import Verdict, final_stage, metric_keys, metric_of, ratio, verdict_vs_parent
from minigpt.types import BuildReport, MetricResult

OWN = "own domain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One column: the model a build handed over. `kept` is its share of the parent's parameters."""

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
    """One model's result and how it stands to the first model's and to its own parent's.

    `ratio` and `difference` are None where the two numbers do not measure the same thing; `why_not` then says why.
    `vs_parent` is the ratio to the model's own parent, meaningful across domains; `verdict` is its paired verdict.
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
    verdict: Verdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One metric of one task across the models; a None cell was not measured.

    Between models of several domains `task` speaks of the `own domain`, and the cells name the actual tasks.
    """

    task: str
    metric: str
    higher_is_better: bool
    chance: float | None
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Models and metrics; the first model is the one the others are compared with."""

    models: tuple[Model, ...]
    rows: tuple[Row, ...]


def compare(reports: Sequence[tuple[str, BuildReport]]) -> Comparison:
    """Line up the final stages of several builds.

    Nothing is refused: numbers over different texts, questions or vocabularies stand in the table, but without a
    ratio to the first.

    Args:
        reports: a name to show and a report for each model; the first is the reference.

    Raises:
        ConfigError: no report was given.
    """
    if not reports:
        raise ConfigError("Nothing to compare: name at least one build folder, report.json or catalog id.")
    mixed = len({report.domain for _, report in reports}) > 1
    keys: dict[tuple[str, str], None] = {}
    for _, report in reports:
        for task, metric in metric_keys(report, [final_stage(report)]):
            keys[(_alias(report, task) if mixed else task, metric)] = None
    rows = (_row(task, metric, [report for _, report in reports]) for task, metric in keys)
    return Comparison(models=tuple(_model(name, report) for name, report in reports), rows=tuple(rows))


def comparable(ours: BuildReport, first: BuildReport, result: MetricResult, other: MetricResult) -> str | None:
    """Why two results must not be divided by each other, or None if they may.

    Equal task fingerprints are the proof; where a report carries none, the number of items has to agree.
    """
    if result.task != other.task:
        return f"measured on {result.task}, not {other.task}"
    prints = ours.fingerprints.get(result.task), first.fingerprints.get(other.task)
    if None not in prints and prints[0] != prints[1]:
        return "other held-out data"
    if result.n != other.n:
        return f"{result.n} items, not {other.n}"
    if result.metric == "token_perplexity" and not _equal_vocabulary(ours, first):
        return "other vocabulary"
    return None


def _equal_vocabulary(ours: BuildReport, first: BuildReport) -> bool:
    prints = ours.fingerprints.get("vocabulary"), first.fingerprints.get("vocabulary")
    if None not in prints:
        return prints[0] == prints[1]
    untouched = all(report.shape_before.vocab_size == report.shape_after.vocab_size for report in (ours, first))
    return untouched and ours.base_model == first.base_model


def _model(name: str, report: BuildReport) -> Model:
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
    """The task with the report's own domain made anonymous, so that builds of several domains share rows."""
    head, slash, tail = task.partition("/")
    return OWN + slash + tail if head == report.domain else task


def _actual(report: BuildReport, task: str) -> str:
    return report.domain + task.removeprefix(OWN) if task.startswith(OWN) else task


def _row(task: str, metric: str, reports: Sequence[BuildReport]) -> Row:
    results = [metric_of(final_stage(report), _actual(report, task), metric) for report in reports]
    some = next(result for result in results if result is not None)
    cells = (
        _cell(report, result, reports[0], results[0]) if result else None
        for report, result in zip(reports, results, strict=True)
    )
    return Row(task=task, metric=metric, higher_is_better=some.higher_is_better, chance=some.chance, cells=tuple(cells))


def _cell(report: BuildReport, result: MetricResult, first: BuildReport, reference: MetricResult | None) -> Cell:
    why_not = comparable(report, first, result, reference) if reference else "the first model was not measured"
    parent = report.stage("parent")
    found = verdict_vs_parent(report, result) if final_stage(report) is not parent else None
    return Cell(
        task=result.task,
        value=result.value,
        low=result.low,
        high=result.high,
        n=result.n,
        ratio=ratio(result, reference) if why_not is None else None,
        difference=result.value - reference.value if reference and why_not is None else None,
        why_not=why_not,
        vs_parent=ratio(result, metric_of(parent, result.task, result.metric)) if found else None,
        verdict=found,
    )
