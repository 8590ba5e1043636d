"""Sweeps over methods, sizes and seeds, and the matrix of specialists against domains."""

from minigpt.sweep.options import SweepOptions
from minigpt.sweep.records import Cell, DomainSweep, Matrix, SweepReport
from minigpt.sweep.run import sweep

__all__ = ["Cell", "DomainSweep", "Matrix", "SweepOptions", "SweepReport", "sweep"]
