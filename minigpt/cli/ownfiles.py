"""Data and text about a folder of one's own documents: what was read, and what was left out and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.corpus.newdomain import NewDomain
    from minigpt.documents.convert import Reading

# Files that are named for one reason or remark; `--json` names all.
NAMED = 6


def reading_data(name: str, written: NewDomain) -> dict[str, Any]:
    """Return the result of `domains new` as data."""
    general = written.general
    return {
        "domain": name,
        "path": str(written.path),
        "kept_apart": written.apart,
        "grouped_by": written.grouped_by,
        "groups": written.groups,
        "texts": str(written.texts) if written.texts else None,
        "read": written.reading.files,
        "skipped": written.reading.skipped,
        "general_read": general.files if general else (),
        "general_skipped": general.skipped if general else (),
        "tasks": [{"name": task.config.name, "file": task.file, "prompts": task.prompts} for task in written.tasks],
    }


def written_text(written: NewDomain) -> RenderableType:
    """Draw what was read, what was left out and why, and what comes next."""
    from rich.console import Group

    where = f"The text is in {written.texts}; your files are as they were." if written.texts else ""
    general = reading_lines(written.general, "general text: ") if written.general else []
    lines = [
        *reading_lines(written.reading),
        *general,
        *task_lines(written),
        f"Wrote {written.path}. {written.apart}",
        *([where] if where else []),
        f"Build with: minigpt build --domain {written.path}",
    ]
    return Group(*lines)


def task_lines(written: NewDomain) -> list[str]:
    """Say which files became tasks, in one sentence; nothing where none did."""
    from minigpt.corpus.task_files import tasks_sentence

    return [tasks_sentence(written.tasks)] if written.tasks else []


def reading_lines(reading: Reading, prefix: str = "") -> list[str]:
    """Say what was read of each kind, with the columns and remarks, and list what was left out by its reason."""
    from minigpt.documents.convert import reasons

    kinds: dict[str, list[int]] = {}
    for file in reading.files:
        counts = kinds.setdefault(file.kind, [0, 0])
        counts[0] += 1
        counts[1] += file.documents
    parts = ", ".join(f"{count} {kind} ({documents:,})" for kind, (count, documents) in sorted(kinds.items()))
    files, documents = len(reading.files), reading.documents
    lines = [
        f"{prefix}Read {files:,} file{'s' * (files != 1)}: {documents:,} document{'s' * (documents != 1)}, "
        f"{size_text(reading.bytes)} of text. Files by kind, with their documents: {parts}."
    ]
    columns: dict[str, list[str]] = {}
    for file in reading.files:
        if file.column and file.column != "text":
            columns.setdefault(f"the text is the column {file.column!r}", []).append(file.file)
        for note in file.notes:
            columns.setdefault(note, []).append(file.file)
    lines += [f"  {names(places)}: {remark}" for remark, places in columns.items()]
    if reading.skipped:
        lines.append(f"{prefix}Left out {len(reading.skipped):,}:")
        lines += [f"  {names(places)}: {reason}" for reason, places in reasons(reading.skipped).items()]
    return lines


def names(files: list[str]) -> str:
    """Name the first files of a list."""
    more = len(files) - NAMED
    return ", ".join(files[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def size_text(size: int) -> str:
    """Format a size in bytes."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
