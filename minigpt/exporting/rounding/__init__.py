"""Four-bit block rounding: algebra that knows no file format, and the layers of a model it is applied to.

Not to be confused with NF4, the four-bit type of bitsandbytes: see :mod:`minigpt.transformer.nf4`.
"""

from __future__ import annotations

from minigpt.exporting.rounding.blocks import (
    RoundedMatrix,
    round_compensated,
    round_nearest,
    round_searched,
    row_errors,
    stack_rows,
)
from minigpt.exporting.rounding.matrices import round_matrices
from minigpt.transformer.grams import gram_matrices, matrices_by_input

__all__ = [
    "RoundedMatrix",
    "gram_matrices",
    "matrices_by_input",
    "round_compensated",
    "round_matrices",
    "round_nearest",
    "round_searched",
    "row_errors",
    "stack_rows",
]
