"""Models that leave the house: every format is written to a temporary folder, verified, and only then handed over.

What runs an export is imported on first use, so that the command's help costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minigpt.exporting.formats import EXPORTERS, Format, format_of, rounding_of
from minigpt.lazy import resolve

if TYPE_CHECKING:
    from minigpt.exporting.run import ExportRequest, Written, export

__all__ = ["EXPORTERS", "ExportRequest", "Format", "Written", "export", "format_of", "rounding_of"]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it (PEP 562)."""
    if name not in {"ExportRequest", "Written", "export"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return resolve(f"minigpt.exporting.run:{name}")
