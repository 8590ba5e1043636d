"""Fewer bits per weight, chosen on calibration text: pure algebra, whatever file it ends up in."""

from __future__ import annotations

from minigpt.quantize.grams import gram_matrices
from minigpt.quantize.rounding import BLOCK, Rounded, compensated, nearest, row_errors, searched

__all__ = ["BLOCK", "Rounded", "compensated", "gram_matrices", "nearest", "row_errors", "searched"]
