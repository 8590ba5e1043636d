"""Models for other runtimes: every format is written to a temporary folder, verified, and only then handed over.

The table of formats is cheap to import. Everything that runs an export is imported on first use, so that the command's
help stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minigpt.exporting.formats import EXPORTERS, QUALITY_BYTES, Format, check_options, format_of, rounding_of
from minigpt.lazy import resolve

if TYPE_CHECKING:
    from minigpt.exporting.request import ExportRequest, Written
    from minigpt.exporting.run import export

# The module that defines each name that is imported on first use.
_HOMES = {
    "ExportRequest": "minigpt.exporting.request",
    "Written": "minigpt.exporting.request",
    "export": "minigpt.exporting.run",
}

__all__ = [
    "EXPORTERS",
    "QUALITY_BYTES",
    "ExportRequest",
    "Format",
    "Written",
    "check_options",
    "export",
    "format_of",
    "rounding_of",
]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return resolve(f"{_HOMES[name]}:{name}")
