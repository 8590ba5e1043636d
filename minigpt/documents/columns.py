"""Choice of the column that holds a table's text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from minigpt.documents.base import Row, Unread

# The column that needs no further sign, and names that decide between several columns of running text.
TEXT = "text"
NAMES = ("text", "content", "body", "document", "article", "note", "notes", "report", "abstract", "description")
# Words of a column's median value from which it is running text.
WORDS = 5
# Columns that are listed in a message.
LISTED = 8


def flat(row: Row, before: str = "") -> Iterator[tuple[str, object]]:
    """Yield every field of a row with its dotted name."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def cell_text(value: object) -> str:
    """Return a field as text: a string, or a list of strings as lines; empty for anything else."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, str) for item in value):
        return "\n".join(value).strip()
    return ""


def text_column(rows: Sequence[Row], wanted: str | None = None) -> str:
    """Choose the column that holds the text of a table.

    That is the column that the user names; or else `text`; or else a column of running text: one with a usual name
    before others, and then the one with the longest values.

    Args:
        rows: The first rows of the table.
        wanted: The column that the user names.

    Raises:
        Unread: No column holds text, or there is none of that name.
    """
    values: dict[str, list[str]] = {}
    for row in rows:
        for name, value in flat(row):
            values.setdefault(name, []).append(cell_text(value))
    listed = ", ".join(list(values)[:LISTED]) + (", ..." if len(values) > LISTED else "")
    _check_text(values, wanted, listed)
    if wanted is not None:
        return wanted
    if any(values.get(TEXT, ())):
        return TEXT
    running = {name: sum(map(len, texts)) for name, texts in values.items() if is_running(texts)}
    if not running:
        raise Unread(f"no column of running text (columns: {listed}); name one with --text-column")
    return max(running, key=lambda name: (name.lower() in NAMES, running[name]))


def _check_text(values: Mapping[str, Sequence[str]], wanted: str | None, listed: str) -> None:
    """Refuse a table without rows, without the wanted column, or without any text where it is looked for.

    A table of chats, say, has lists of objects: to name a column would not help then.
    """
    if not values:
        raise Unread("no rows in it")
    if wanted is not None and wanted not in values:
        raise Unread(f"no column {wanted!r}; there is {listed}")
    if not any(text for name, texts in values.items() for text in texts if wanted in (None, name)):
        what = "no field with text" if wanted is None else f"no text in column {wanted!r}"
        raise Unread(f"{what}, only numbers, lists or objects in {listed}; write the text into a field {TEXT!r}")


def is_running(texts: Iterable[str]) -> bool:
    """Return True if the values of a column are sentences: half of them have several different words."""
    counts = sorted(len(set(re.findall(r"[^\W\d_]+", text[:1000]))) for text in texts if text)
    return bool(counts) and counts[len(counts) // 2] >= WORDS
