"""Verdicts against the parent in words, the same in every sentence of a report."""

from __future__ import annotations

from minigpt.report.figures import Verdict, verdict_vs_parent
from minigpt.results import BuildReport, MetricResult

WORDS: dict[Verdict, str] = {
    "better": "better than the parent",
    "worse": "worse than the parent",
    "not distinguishable": "not distinguishable from the parent",
    "too few to tell": "too few to tell",
    "repeated wording": "no verdict (repeated wording)",
}


def standing(report: BuildReport, ours: MetricResult) -> str:
    """Write the verdict against the parent in words."""
    return WORDS[verdict_vs_parent(report, ours) or "not distinguishable"]
