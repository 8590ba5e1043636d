"""Page of a catalog: every model with its decision, size, ratios, answers and licenses, and which one to take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minigpt.files import write_text
from minigpt.report.advice import Advice, advise
from minigpt.report.answers import main_results
from minigpt.report.card import base_license
from minigpt.report.decision import Decision, decide
from minigpt.report.figures import final_stage, metric_of
from minigpt.report.page.build import filled
from minigpt.report.page.charts import scale_of
from minigpt.report.page.rows import RatioRow, ratio_rows
from minigpt.report.tasks import GENERAL, OTHER, is_seen
from minigpt.report.text import interval, number, short_reference
from minigpt.results import BuildReport, CatalogEntry, MetricResult, StageReport

# Pictures of intervals are left out on pages of more models, so that a page stays below a megabyte.
PICTURED = 200
QUESTIONS = "accuracy_norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A model of the catalog.

    Attributes:
        entry: Its entry.
        report: Its report; None if that cannot be read.
        problem: Reason why the report cannot be read.
    """

    entry: CatalogEntry
    report: BuildReport | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model as the page shows it.

    Attributes:
        entry: Its entry in the catalog.
        report: Its report.
        base: Its parent, shortened.
        decision: Decision by the gates.
        final: Its last stage.
        kept: Share of the parent's parameters; None if the parent was not measured.
        ratios: Ratios to the parent on own sources, other sources and general text; None where there is none.
        answers: Results on tasks and questions, with those of the parent.
        license: License of the parent, or that it is not known.
        texts: Licenses of the texts.
    """

    entry: CatalogEntry
    report: BuildReport
    base: str
    decision: Decision
    final: StageReport
    kept: float | None
    ratios: tuple[RatioRow | None, ...]
    answers: tuple[str, ...]
    license: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Models of one domain that were measured on the same text, and which of them to take.

    Attributes:
        domain: The domain.
        text: Beginning of the hash of their text; empty where the domain has only one.
        advice: The model to take for each constraint.
        rows: The models, the smallest first.
    """

    domain: str
    text: str
    advice: tuple[Advice, ...]
    rows: tuple[Row, ...]


def render_catalog_page(models: Sequence[Finished], gates: Sequence[str] = ()) -> str:
    """Render the page of a catalog as HTML.

    Args:
        models: The models.
        gates: What the decisions rest on, see :func:`minigpt.report.decision.decide`.

    Raises:
        ConfigError: A gate cannot be read.
    """
    return filled(
        "catalog.html.j2",
        count=len(models),
        groups=list(groups(models, gates)),
        lost=[model for model in models if model.report is None],
        default_gates=not gates,
        gates=gates,
        pictured=len(models) <= PICTURED,
    )


def write_catalog_page(models: Sequence[Finished], path: Path, gates: Sequence[str] = ()) -> None:
    """Write the page of a catalog atomically; the arguments are those of :func:`render_catalog_page`."""
    write_text(path, render_catalog_page(models, gates))


def groups(models: Sequence[Finished], gates: Sequence[str]) -> Iterator[Group]:
    """Yield the models by domain and by the text that they were measured on, because only such models compare.

    Args:
        models: The models; those without a report are left out.
        gates: What the decisions rest on.
    """
    known = [(model.entry, model.report) for model in models if model.report is not None]
    texts = dict.fromkeys((report.domain, _text(report)) for _, report in known)
    domains = [domain for domain, _ in texts]
    for domain, text in sorted(texts):
        same = [(entry, report) for entry, report in known if (report.domain, _text(report)) == (domain, text)]
        rows = [row for _, report in same for row in ratio_rows(report)]
        scale = scale_of([row.ratio for row in rows if row.against == "parent"])
        shown = [_row(entry, report, gates, scale) for entry, report in same]
        yield Group(
            domain=domain,
            text=(text or "not known") if domains.count(domain) > 1 else "",
            advice=advise([(entry.id, report) for entry, report in same], gates),
            rows=tuple(sorted(shown, key=lambda row: row.final.bytes)),
        )


def _text(report: BuildReport) -> str:
    """Return the beginning of the hash of the domain's measured text; empty in reports of older versions."""
    return report.fingerprints.get(report.domain, "")[:8]


def _row(entry: CatalogEntry, report: BuildReport, gates: Sequence[str], scale: tuple[float, float]) -> Row:
    """Describe one model."""
    final, parent = final_stage(report), report.stage("parent")
    ratios = {row.task: row for row in ratio_rows(report, scale) if row.against == "parent"}
    general = ratios.get(f"{GENERAL}/{OTHER}", ratios.get(GENERAL))
    return Row(
        entry=entry,
        report=report,
        base=short_reference(report.base_model),
        decision=decide(report, gates),
        final=final,
        kept=final.parameters / parent.parameters if parent and parent.parameters else None,
        ratios=(ratios.get(report.domain), ratios.get(f"{report.domain}/{OTHER}"), general),
        answers=tuple(_answers(report)),
        license=base_license(report.base_model) or "not known",
        texts=tuple(dict.fromkeys(source.license for source in report.attributions)),
    )


def _answers(report: BuildReport) -> Iterator[str]:
    """Write the domain's free answers and its questions that training text does not answer, beside the parent's."""
    results: list[MetricResult] = [*main_results(report)]
    results += [one for one in final_stage(report).metrics if one.metric == QUESTIONS and not is_seen(one.task)]
    for ours in results:
        if ours.task.startswith(f"{report.domain}/"):
            parent = metric_of(report.stage("parent"), ours.task, ours.metric)
            beside = f"; parent {number(parent.value)}" if parent else ""
            name = f"{ours.task.partition('/')[2]}, {ours.metric.replace('_', ' ')}"
            yield f"{name}: {number(ours.value)} ({interval(ours.low, ours.high)}, n {ours.n:,}{beside})"
