"""Collapse outside the field: general text far above the parent's, or questions that are hardly answered any more."""

from __future__ import annotations

from minigpt.report.figures import HEADLINE, final_stage, metric_of, ratio
from minigpt.report.questions import fallen_sets
from minigpt.report.tasks import GENERAL, OTHER
from minigpt.results import BuildReport

# Ratio of bits per byte on general text from which the loss stands in the first sentence of a report.
COLLAPSE = 1.2


def losses(report: BuildReport) -> tuple[str, ...]:
    """Write what collapsed: the general text that lost most, if beyond the bound, and question sets that fell."""
    final, parent = final_stage(report), report.stage("parent")
    ratios = (
        ratio(metric_of(final, task, HEADLINE), metric_of(parent, task, HEADLINE))
        for task in (GENERAL, f"{GENERAL}/{OTHER}")
    )
    largest = max((value for value in ratios if value is not None), default=0.0)
    text = (f"{largest:.3f}× the parent's bits per byte on general text",) if largest > COLLAPSE else ()
    return (*text, *fallen_sets(report))
