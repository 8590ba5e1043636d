"""Many builds side by side: methods against sizes on one domain, and specialists against domains."""

from minigpt.sweep.options import SweepOptions
from minigpt.sweep.records import Cell, Matrix, SweepReport, Swept
from minigpt.sweep.run import sweep

__all__ = ["Cell", "Matrix", "SweepOptions", "SweepReport", "Swept", "sweep"]
