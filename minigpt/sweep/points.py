"""Finished points of a sweep on disk: the table of all points, and the folder of each, checked before use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minigpt import integrity, report
from minigpt.errors import MiniGPTError, first_line
from minigpt.files import fingerprint, read_jsonl, to_plain, write_jsonl
from minigpt.pipeline.workspace import Workspace
from minigpt.progress import SILENT, Reporter
from minigpt.results import BuildReport
from minigpt.sweep.records import Row

# Table of the points of other inputs, beside that of a sweep.
EARLIER = "earlier-points.jsonl"
# Field of a line that holds the fingerprint of the others.
DIGEST = "digest"


def record(path: Path, row: Row, reporter: Reporter = SILENT) -> None:
    """Put a line into the table: in place of the same point's, without those of the domain's other inputs.

    Points of other inputs or settings cannot be compared with it. Their lines go to the table of earlier points beside
    it, and the reporter is told once for all of them.

    Args:
        path: the table, JSON Lines.
        row: the finished point.
        reporter: told about a damaged table.
    """
    lines = _whole_lines(path, reporter)
    others = [line for line in lines if line["domain"] == row.domain and line["key"] != row.key]
    kept = [line for line in lines if line["domain"] != row.domain or (line["key"] == row.key and line["id"] != row.id)]
    if others:
        earlier = path.with_name(EARLIER)
        write_jsonl(earlier, [*(_whole_lines(earlier, reporter) if earlier.exists() else ()), *others])
        reporter.note(
            f"{len(others)} points of {row.domain} were made of other text, parent or settings and cannot be compared "
            f"with the new ones: their lines are in {earlier} now."
        )
    plain = to_plain(row)
    write_jsonl(path, [*kept, plain | {DIGEST: fingerprint(plain)}])


def _whole_lines(path: Path, reporter: Reporter) -> list[dict[str, Any]]:
    """Read the lines that are as they were written; a damaged table is moved aside, and its other lines are kept.

    Lines of older sweeps have no digest and are taken as they are.
    """
    try:
        lines = read_jsonl(path)
    except MiniGPTError as error:
        reporter.note(integrity.aside_note(path, first_line(error), integrity.set_aside(path)))
        return []
    whole = [line for line in lines if isinstance(line, dict) and _is_whole(line)]
    if len(whole) < len(lines):
        reason = f"{len(lines) - len(whole)} of its lines are not what was written"
        reporter.note(integrity.aside_note(path, reason, integrity.set_aside(path)))
    return whole


def _is_whole(line: Mapping[str, Any]) -> bool:
    """Return whether a line has the fields that are needed, and its own fingerprint if it has one."""
    rest = {name: value for name, value in line.items() if name != DIGEST}
    return {"domain", "key", "id"} <= rest.keys() and line.get(DIGEST, fingerprint(rest)) == fingerprint(rest)


def finished(workspace: Workspace, key: str) -> BuildReport | None:
    """Return the report of a point, if it is done and undamaged; one made from other inputs does not count.

    A damaged folder is moved aside.

    Args:
        workspace: the folder of the point.
        key: fingerprint of its inputs.
    """
    if not workspace.report.exists():
        return None
    if (workspace.root / integrity.SUMS).exists() and (reason := integrity.damage(workspace.root)) is not None:
        aside = integrity.set_aside(workspace.root)
        workspace.reporter.note(integrity.aside_note(workspace.root, reason, aside))
        return None
    try:
        result = report.load(workspace.report)
    except MiniGPTError:
        return None
    return result if result.fingerprints.get("build") == key else None


def seal(workspace: Workspace, key: str) -> None:
    """Record the hashes of a finished point's files, its work aside.

    Args:
        workspace: the folder of the point.
        key: fingerprint of its inputs.
    """
    names = (path.name for path in workspace.root.iterdir() if path.is_file() and path.name != integrity.SUMS)
    integrity.seal(workspace.root, names=[name for name in names if not name.startswith(".")], key=key)
