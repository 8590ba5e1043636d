"""Strict reading and writing of `report.json`, on which other programs rely."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minigpt.errors import MiniGPTError
from minigpt.files import read_json, to_plain, write_json
from minigpt.integrity import check_file
from minigpt.parsing import load_json
from minigpt.results import SCHEMA_VERSION, BuildReport, MetricResult

FILE_NAME = "report.json"


def save(report: BuildReport, path: Path) -> None:
    """Write a report atomically.

    Args:
        report: Report to write.
        path: The file, or a folder in which `report.json` is written.

    Raises:
        MiniGPTError: The report breaks the schema (a number that is not finite, a stage or a metric given twice), or
            the file cannot be written.
    """
    _check(report, path)
    write_json(_file(path), report)


def load(path: Path) -> BuildReport:
    """Read a report, and refuse one that this version would misread.

    Args:
        path: The file, or a folder that holds `report.json`.

    Raises:
        MiniGPTError: The file is missing, is not JSON, has another schema version, or has a field that is missing,
            unknown or of the wrong type (the message names the field), or is not what the build wrote.
    """
    path = _file(path)
    if not path.is_file():
        raise MiniGPTError(f"No report at {path}. Give a finished build folder or its report.json.")
    check_file(path)
    try:
        raw = load_json(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise MiniGPTError(f"{path} is not JSON ({error}). Run the build again to write a new report.") from None
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise MiniGPTError(
            f"{path} has schema_version {version!r}, but this minigpt reads {SCHEMA_VERSION}. "
            "Use the minigpt that wrote it, or run the build again."
        )
    report = read_json(path, BuildReport)
    if difference := _first_difference(raw, to_plain(report), ""):
        raise MiniGPTError(f"{path} is not a valid report: {difference}.")
    _check(report, path)
    return report


def _file(path: Path) -> Path:
    """Complete a folder to the report inside it."""
    return path / FILE_NAME if path.is_dir() else path


def _first_difference(raw: Any, read: Any, where: str) -> str | None:
    """Name the first field of `raw` that did not survive reading: unknown, or silently turned into another type."""
    if isinstance(raw, dict) and isinstance(read, dict):
        pairs: Iterable[tuple[str, Any]] = ((key, value) for key, value in raw.items())
    elif isinstance(raw, list) and isinstance(read, list):
        pairs = ((str(index), value) for index, value in enumerate(raw))
        read = {str(index): value for index, value in enumerate(read)}
    else:
        same = raw == read and isinstance(raw, bool) == isinstance(read, bool)
        return None if same else f"{where}: {raw!r} has the wrong type"
    for key, value in pairs:
        name = f"{where}.{key}".lstrip(".")
        if key not in read:
            return f"unknown field {name!r}"
        if difference := _first_difference(value, read[key], name):
            return difference
    return None


def _check(report: BuildReport, path: Path) -> None:
    """Check the rules of the schema that types cannot express: finite numbers, and each stage and metric only once."""
    if not report.stages:
        raise MiniGPTError(f"The report for {path} has no stage: nothing was measured.")
    _check_once((stage.stage for stage in report.stages), "stage", path)
    for stage in report.stages:
        _check_once((f"{result.metric} of {result.task} in {stage.stage}" for result in stage.metrics), "metric", path)
        for result in stage.metrics:
            _check_finite(result, stage.stage, path)


def _check_once(names: Iterable[str], kind: str, path: Path) -> None:
    """Refuse a report that gives a name twice."""
    known: set[str] = set()
    for name in names:
        if name in known:
            raise MiniGPTError(f"The report for {path} gives the {kind} {name!r} twice; it may stand there only once.")
        known.add(name)


def _check_finite(result: MetricResult, stage: str, path: Path) -> None:
    """Refuse a metric that is not a finite number."""
    comparisons = (
        result.paired_difference_vs_parent,
        result.paired_difference_vs_tuned,
        result.paired_difference_vs_distilled,
        result.paired_difference_vs_dense,
        result.paired_ratio_vs_parent,
    )
    values = [result.value, result.low, result.high, result.effective_n or 0.0]
    for paired in comparisons:
        values += [paired.value, paired.low, paired.high] if paired else []
    if not all(math.isfinite(value) for value in values):
        raise MiniGPTError(
            f"The report for {path} has a {result.metric} of {result.task} in {stage} that is not a finite number: "
            "the model is broken or its evaluation overflowed."
        )
