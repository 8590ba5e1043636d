"""Data and text about a folder of one's own documents: what was read, and what was left out and why."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minigpt.corpus.newdomain import NewDomain
    from minigpt.documents.convert import Reading, Tally

# Files that are named for one reason or remark; `--json` names all.
NAMED = 6


def reading_data(name: str, written: NewDomain) -> dict[str, Any]:
    """Return the result of `domains new` as data."""
    general = written.general
    return {
        "domain": name,
        "path": str(written.path),
        "replaced": written.replaced,
        "kept_apart": written.apart,
        "ties": written.ties,
        "grouped_by": written.grouped_by,
        "groups": written.groups,
        "texts": str(written.texts) if written.texts else None,
        "counts": written.reading.tally,
        "read": written.reading.files,
        "skipped": written.reading.skipped,
        "general_counts": general.tally if general else None,
        "general_read": general.files if general else (),
        "general_skipped": general.skipped if general else (),
        "questions": [
            {"name": item.config.name, "file": item.file, "questions": item.questions, "role": item.config.role}
            for item in written.questions
        ],
        "tasks": [{"name": task.config.name, "file": task.file, "prompts": task.prompts} for task in written.tasks],
    }


def written_text(written: NewDomain) -> RenderableType:
    """Draw what was read, what was left out and why, and what comes next."""
    from rich.console import Group

    path = quote(str(written.path))
    where = f"The text is in {written.texts}; your files are as they were." if written.texts else ""
    general = reading_lines(written.general, "general text: ") if written.general else []
    lines = [
        *reading_lines(written.reading),
        *general,
        *other_lines(written),
        *([written.replaced] if written.replaced else []),
        f"Wrote {written.path}. {written.apart}",
        *([written.ties] if written.ties else []),
        *([where] if where else []),
        f"See what it holds with: minigpt corpus stats {path}",
        f"Build with: minigpt build --domain {path}",
    ]
    return Group(*lines)


def other_lines(written: NewDomain) -> list[str]:
    """Say which files became questions or tasks, one sentence each; nothing where none did."""
    from minigpt.corpus.question_files import questions_sentence
    from minigpt.corpus.task_files import tasks_sentence

    return [line for line in (questions_sentence(written.questions), tasks_sentence(written.tasks)) if line]


def tally_line(tally: Tally) -> str:
    """Account for every file of a folder in one sentence."""
    parts = [f"{tally.read:,} read as text"]
    parts += [f"{tally.other:,} with questions or prompts"] if tally.other else []
    parts += [f"{tally.left_out:,} left out"] if tally.left_out else []
    total = tally.listed - tally.archives + tally.inside
    folder = f"The folder holds {count_text(tally.listed, 'file')}"
    if tally.archives or tally.inside:
        opened = f", {tally.archives:,} of them archives that were opened" if tally.archives else ""
        folder += (
            f"{opened}, and archives and mails hold {tally.inside:,} more. Opened archives aside that makes {total:,}"
        )
    return f"{folder}: {', '.join(parts)}."


def count_text(count: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def reading_lines(reading: Reading, prefix: str = "") -> list[str]:
    """Say what was read of each kind, with the columns and remarks, and list what was left out by its reason."""
    from minigpt.documents.convert import reasons

    kinds: dict[str, list[int]] = {}
    for file in reading.files:
        counts = kinds.setdefault(file.kind, [0, 0])
        counts[0] += 1
        counts[1] += file.documents
    parts = ", ".join(f"{count} {kind} ({documents:,})" for kind, (count, documents) in sorted(kinds.items()))
    amount, unit = amount_text(reading)
    lines = [
        f"{prefix}{tally_line(reading.tally)}",
        f"{prefix}Read {count_text(len(reading.files), 'file')}: {amount}, {size_text(reading.bytes)} of text. "
        f"Files by kind, with their {unit}: {parts}.",
    ]
    columns: dict[str, list[str]] = {}
    for file in reading.files:
        if file.column and file.column != "text":
            columns.setdefault(f"the text is the column {file.column!r}", []).append(file.file)
        for note in file.notes:
            columns.setdefault(note, []).append(file.file)
    lines += [f"  {names(places)}: {remark}" for remark, places in columns.items()]
    if reading.skipped:
        part = reading.tally.parts
        also = f" and {part:,} part{'s of files' if part > 1 else ' of a file'}" if part else ""
        lines.append(f"{prefix}Left out {count_text(reading.tally.left_out, 'file')}{also}:")
        lines += [f"  {names(places)}: {reason}" for reason, places in reasons(reading.skipped).items()]
    return lines


def amount_text(reading: Reading) -> tuple[str, str]:
    """Return how many documents and rows were read, and the noun for them: rows of one source are one document."""
    rows = sum(file.documents for file in reading.files if file.column)
    counts = {"document": reading.documents - rows, "row": rows}
    present = {noun: count for noun, count in counts.items() if count} or {"document": 0}
    nouns = [f"{noun}s" for noun in present]
    return " and ".join(count_text(count, noun) for noun, count in present.items()), " or ".join(nouns)


def names(files: list[str]) -> str:
    """Name the first files of a list."""
    more = len(files) - NAMED
    return ", ".join(files[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def size_text(size: int) -> str:
    """Format a size in bytes."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
