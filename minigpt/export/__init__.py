"""Models that leave the house: every format is written to a temporary folder, verified, and only then handed over."""

from __future__ import annotations

from minigpt.export.formats import EXPORTERS, Format, format_of, rounding_of
from minigpt.export.run import ExportRequest, Written, export

__all__ = ["EXPORTERS", "ExportRequest", "Format", "Written", "export", "format_of", "rounding_of"]
