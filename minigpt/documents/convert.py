"""Conversion of a folder of documents to JSON Lines: one row a document, with the file that it came from."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from minigpt.documents.base import Row, Skipped, Source, Table, Unread, reason_for
from minigpt.documents.columns import cell_text, flat, text_column
from minigpt.documents.kinds import Kind, check_packages, kind_of
from minigpt.documents.scan import entries, listed
from minigpt.escaping import valid
from minigpt.files import atomic_path
from minigpt.lazy import resolve
from minigpt.progress import SILENT, Reporter

# Rows of a table by which its column of text is chosen.
LOOKED_AT = 200
# Longest value of another column that is kept beside the text, in characters.
LONGEST_VALUE = 200
FILE = "texts.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRead:
    """A file whose text was read.

    Attributes:
        file: Its path inside the folder.
        kind: Name of its kind.
        documents: Number of its documents.
        bytes: Size of its text.
        column: Column of its text; empty if it is no table.
        notes: Remarks, such as its encoding or rows that were left out.
    """

    file: str
    kind: str
    documents: int
    bytes: int
    column: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Numbers of files that account for a folder: `listed - archives + inside` is `read + other + left_out`.

    Attributes:
        listed: Files of the folder and its subfolders; a hidden folder, and a link to one, counts as one.
        archives: Archives among them that were opened, so that the files inside count.
        inside: Files inside archives and mails.
        read: Files that were read as text.
        other: Files that hold something else, such as questions.
        left_out: Files that were left out.
        parts: Parts of files that were left out while another part was read, or that have a reason of their own.
    """

    listed: int = 0
    archives: int = 0
    inside: int = 0
    read: int = 0
    other: int = 0
    left_out: int = 0
    parts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Files of a folder that were read, and those that were left out.

    Attributes:
        files: Files that were read.
        skipped: Files, and parts of files, that were left out.
        tally: Numbers of all files of the folder.
    """

    files: tuple[FileRead, ...]
    skipped: tuple[Skipped, ...]
    tally: Tally = Tally()

    @property
    def documents(self) -> int:
        """Number of all documents."""
        return sum(file.documents for file in self.files)

    @property
    def bytes(self) -> int:
        """Size of all text."""
        return sum(file.bytes for file in self.files)


def convert(
    folder: Path,
    target: Path,
    *,
    column: str | None = None,
    keep: Collection[str] = (),
    without: Collection[str] = (),
    reporter: Reporter = SILENT,
) -> Reading:
    """Write the text of a folder's documents as JSON Lines; the files themselves are only read.

    Args:
        folder: The folder.
        target: The folder to write. It gets one file for each top-level folder, so that these stay apart.
        column: Column of the text in tables (None: found in each).
        keep: Other columns of tables whose short values are kept.
        without: Files of the folder that are not to be read.
        reporter: Receives progress.

    Raises:
        ConfigError: A package is missing that a file needs.
        MiniGPTError: The target cannot be written.
    """
    present = list(listed(folder))
    check_packages(kind for item in present if isinstance(item, Source) and (kind := kind_of(item.file)))
    readings: list[Reading] = []
    names: list[str] = []
    with atomic_path(target) as temporary:
        temporary.mkdir()
        for entry in entries(reporter.track(present, title="Reading documents", total=len(present))):
            names.append(entry.file if isinstance(entry, Skipped) else entry[0].file)
            if isinstance(entry, Skipped):
                readings.append(Reading(files=(), skipped=(entry,)))
            elif entry[0].file not in without:
                check_packages([entry[1]])
                readings.append(write_one(entry, temporary, column=column, keep=frozenset(keep)))
    return joined(readings, names=names, present={item.file for item in present})


def joined(readings: Sequence[Reading], *, names: Sequence[str], present: Collection[str]) -> Reading:
    """Join the readings of single files to that of their folder, and count all files.

    Args:
        readings: One reading for each file that was to be read.
        names: Files that were seen, those that were not to be read and those inside others among them.
        present: Files of the folder itself.
    """
    files = tuple(file for reading in readings for file in reading.files)
    skipped = tuple(item for reading in readings for item in reading.skipped)
    own = sum(name in present for name in names)
    left_out = sum(not reading.files for reading in readings)
    tally = Tally(
        listed=len(present),
        archives=len(present) - own,
        inside=len(names) - own,
        read=len(files),
        other=len(names) - len(readings),
        left_out=left_out,
        parts=len(skipped) - left_out,
    )
    return Reading(files=files, skipped=skipped, tally=tally)


def write_one(entry: tuple[Source, Kind], target: Path, *, column: str | None, keep: Collection[str]) -> Reading:
    """Append the text of one file to the file of its top-level folder.

    Returns:
        What was read of it, and why it or a part of it was left out.
    """
    source, kind = entry
    source.wanted = column
    place = source.beside or source.file
    top = place.partition("/")[0] if "/" in place else ""
    path = target / (f"{top}-folder" if top == FILE else top) / FILE
    path.parent.mkdir(exist_ok=True)
    columns: dict[str, None] = {}
    skipped: list[Skipped] = []
    documents = size = 0
    with path.open("a", encoding="utf-8") as stream:
        try:
            for row in converted(source, kind, column=column, keep=keep, columns=columns, skipped=skipped):
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                documents += 1
                size += len(row["text"].encode())
        except Exception as error:  # libraries raise errors of every kind for a damaged file
            before = f"after {documents:,} rows: " if documents else ""
            skipped.append(Skipped(file=source.file, reason=before + reason_for(error)))
    if not documents and not skipped:
        skipped.append(Skipped(file=source.file, reason="no text in it"))
    if not path.stat().st_size:
        path.unlink()
    read = FileRead(
        file=source.file,
        kind=kind.name,
        documents=documents,
        bytes=size,
        column=", ".join(columns),
        notes=tuple(source.notes),
    )
    return Reading(files=(read,) if documents else (), skipped=tuple(skipped))


def converted(
    source: Source,
    kind: Kind,
    *,
    column: str | None,
    keep: Collection[str],
    columns: dict[str, None],
    skipped: list[Skipped],
) -> Iterator[dict[str, str]]:
    """Yield the rows to write for one file.

    Args:
        source: The file.
        kind: Its kind.
        column: Column of the text in tables (None: found in each).
        keep: Other columns that are kept.
        columns: Receives the columns that hold the text.
        skipped: Receives tables of the file that hold no text.
    """
    reader = resolve(kind.read)(source)
    if kind.gives == "document":
        for row in reader:
            yield from one_row(row, "text", source.file, source.file, keep)
        return
    for table in reader:
        try:
            yield from table_rows(table, source, column=column, keep=keep, columns=columns)
        except Unread as error:
            if not table.name:
                raise
            skipped.append(Skipped(file=f"{source.file}, {table.unit} {table.name}", reason=str(error)))


def table_rows(
    table: Table, source: Source, *, column: str | None, keep: Collection[str], columns: dict[str, None]
) -> Iterator[dict[str, str]]:
    """Yield the rows to write for one table, and count those without text in a note."""
    first = list(islice(table.rows, LOOKED_AT))
    name_of_text = text_column(first, column)
    columns[name_of_text] = None
    without = 0
    place = f"{source.file}, {table.name}" if table.name else source.file
    for number, row in enumerate(chain(first, table.rows), start=1):
        rows = list(one_row(row, name_of_text, source.file, f"{place}, row {number}", keep))
        without += not rows
        yield from rows
    if without:
        source.notes.append(f"rows left out, because {name_of_text!r} holds no text: {without:,}")


def one_row(row: Row, column: str, file: str, name: str, keep: Collection[str]) -> Iterator[dict[str, str]]:
    """Yield the row to write; nothing if there is no text."""
    fields: dict[str, Any] = dict(flat(row))
    text = valid(cell_text(fields.get(column)).replace("\0", "").replace("\r\n", "\n"))
    if not text.strip():
        return
    kept = {key: valid(str(value)) for key, value in fields.items() if key in keep and value not in (None, "")}
    kept = {key: value for key, value in kept.items() if len(value) <= LONGEST_VALUE and key not in ("text", column)}
    yield {"text": text, "source": name, "file": file} | kept


def reasons(skipped: Sequence[Skipped]) -> dict[str, list[str]]:
    """Group files that were left out by the reason."""
    groups: dict[str, list[str]] = {}
    for item in skipped:
        groups.setdefault(item.reason, []).append(item.file)
    return groups
