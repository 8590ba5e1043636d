"""Page of several models: the one to take for each constraint, their decisions, sizes and ratios."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minigpt.files import write_text
from minigpt.report.advice import Named, advise
from minigpt.report.compare import compare
from minigpt.report.decision import decide
from minigpt.report.page.build import filled
from minigpt.report.page.rows import ratio_rows
from minigpt.report.text import short_reference


def render_comparison_page(reports: Sequence[Named], gates: Sequence[str] = ()) -> str:
    """Render the page of several models as HTML.

    Args:
        reports: A name to show and a report for each model; the first is the reference.
        gates: What the decisions rest on, see :func:`minigpt.report.decision.decide`.
    """
    models = compare(reports).models
    return filled(
        "compare.html.j2",
        models=models,
        bases=[short_reference(model.base_model) for model in models],
        advices=advise(reports, gates),
        decisions=[(name, decide(report, gates)) for name, report in reports],
        ratios=[(name, ratio_rows(report)) for name, report in reports],
    )


def write_comparison_page(reports: Sequence[Named], path: Path, gates: Sequence[str] = ()) -> None:
    """Write the page of several models atomically; the arguments are those of :func:`render_comparison_page`."""
    write_text(path, render_comparison_page(reports, gates))
