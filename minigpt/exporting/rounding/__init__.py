"""Fewer bits per weight, chosen on calibration text: pure algebra, whatever file it ends up in."""

from __future__ import annotations

from minigpt.exporting.rounding.grams import gram_matrices, matrices_of
from minigpt.exporting.rounding.rounding import BLOCK, Rounded, compensated, nearest, row_errors, searched, stacked
from minigpt.exporting.rounding.together import round_together

__all__ = [
    "BLOCK",
    "Rounded",
    "compensated",
    "gram_matrices",
    "matrices_of",
    "nearest",
    "round_together",
    "row_errors",
    "searched",
    "stacked",
]
