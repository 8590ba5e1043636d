"""Tables of cells: rows as mappings from the names of columns to values, and what becomes of rows that are too wide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from minigpt.documents.base import Row, Source, Unread
from minigpt.documents.columns import text_column
from minigpt.documents.headers import Cells, filled, header_place, names_in, numbered, regular, width

# Rows by which names and columns are recognized.
LOOKED_AT = 200
# Share of equally wide rows below which a table without names of columns is lines of text that have delimiters in them.
LINES = 0.5


def named_rows(cells: Iterable[Cells], source: Source, delimiter: str = "") -> Iterator[Row]:
    """Yield rows with the names of their columns: those of the first row if it looks like names, or else numbers.

    Args:
        cells: The rows.
        source: The file. It gets a note of rows above the names, and of rows that are wider than the names.
        delimiter: Delimiter that text without quotes may have been cut at; empty if a row can have no cell too many.
    """
    rows = (row for row in cells if filled(row))
    first = list(islice(rows, LOOKED_AT))
    place = header_place(first, wanted=source.wanted, cut=bool(delimiter))
    if place:
        source.notes.append(f"rows above the names of the columns, left out: {place:,}")
    names = names_in(first[place]) if place is not None else numbered_names(first, delimiter)
    body = first[place + 1 :] if place is not None else first
    if not delimiter:
        yield from (as_row(names, row) for row in chain(body, rows))
        return
    joined = joins(names, body, delimiter, source.wanted)
    wide = 0
    for row in chain(body, rows):
        too_wide = width(row) > len(names)
        wide += too_wide
        yield as_row(names, with_rest(row, len(names), delimiter) if joined and too_wide else row[: len(names)])
    if wide:
        fate = f"; the rest was joined to {names[-1]!r}" if joined else ""
        source.notes.append(f"rows with more cells than columns: {wide:,}{fate}")


def numbered_names(rows: Sequence[Cells], delimiter: str) -> list[str]:
    """Name the columns of a table without names; lines that were cut at their own commas are one column."""
    lines = bool(delimiter) and not regular(rows, LINES)
    return [numbered(number) for number in range(1, 2 if lines else len(rows[0]) + 1 if rows else 1)]


def joins(names: Sequence[str], rows: Sequence[Cells], delimiter: str, wanted: str | None) -> bool:
    """Return True if cells beyond the last column belong to it, because the text stands there and was cut."""
    if len(names) == 1:
        return True
    whole = [with_rest(row, len(names), delimiter) for row in rows]
    for table in (rows, whole):
        try:
            return text_column([as_row(names, row[: len(names)]) for row in table], wanted) == names[-1]
        except Unread:
            continue
    return False


def with_rest(row: Cells, number: int, delimiter: str) -> Cells:
    """Return a row with so many cells: what is beyond them is joined to the last one."""
    return (*row[: number - 1], delimiter.join(str(cell) for cell in row[number - 1 : width(row)]))


def as_row(names: Sequence[str], row: Cells) -> Row:
    """Return a row with the names of its columns. Columns without a name appear where they hold something."""
    unnamed = ((numbered(number), cell) for number, cell in enumerate(row[len(names) :], start=len(names) + 1))
    pairs = chain(zip(names, row, strict=False), unnamed)
    return {name: cell for name, cell in pairs if cell not in (None, "") or not name.startswith("column ")}
