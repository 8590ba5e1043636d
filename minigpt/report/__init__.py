"""Reports of builds: `report.json` on disk, the view in the terminal, comparisons, and gates for scripts."""

from __future__ import annotations

from minigpt.report.compare import Comparison, compare
from minigpt.report.compare_table import render_comparison
from minigpt.report.conditional import of_conditional
from minigpt.report.gate import check_gate, parse_gate
from minigpt.report.next_steps import next_steps
from minigpt.report.render import render, svg
from minigpt.report.store import load, save

__all__ = [
    "Comparison",
    "check_gate",
    "compare",
    "load",
    "next_steps",
    "of_conditional",
    "parse_gate",
    "render",
    "render_comparison",
    "save",
    "svg",
]
