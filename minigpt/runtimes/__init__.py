"""Runtimes: one small protocol for PyTorch, ONNX Runtime, llama.cpp and any other program that runs an export.

`minigpt eval`, `compare`, `generate` and `bench` know no runtime by name: they call :func:`load` on a folder.
"""

from __future__ import annotations

from minigpt.runtimes.base import LOADERS, Floats, Runtime, is_export, load
from minigpt.runtimes.record import RECORD, Check, ExportRecord, Greedy, Quality, Source, as_report, read_record

__all__ = [
    "LOADERS",
    "RECORD",
    "Check",
    "ExportRecord",
    "Floats",
    "Greedy",
    "Quality",
    "Runtime",
    "Source",
    "as_report",
    "is_export",
    "load",
    "read_record",
]
