"""Rows in a JSON document of any shape: a list of objects, several lists, a table by columns, or a single object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minigpt.documents.base import Row, Unread
from minigpt.documents.columns import NAMES, TEXT, cell_text, flat, is_running, text_column

# Rows of a list by which its text is recognized.
LOOKED_AT = 200


@dataclass(slots=True, kw_only=True)
class Shape:
    """Lists of rows in a JSON document.

    Attributes:
        lists: The rows of each list by the name of the field that holds it; empty if the document is the list.
        notes: Remarks on what is left out.
    """

    lists: dict[str, Sequence[Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def shape_of(value: Any, wanted: str | None = None) -> Shape:
    """Find the rows in a JSON document.

    Args:
        value: The document.
        wanted: Column of the text that the user names.
    """
    shape = Shape()
    if isinstance(value, list):
        shape.lists = dict(listed("", value, shape.notes))
    elif isinstance(value, dict):
        by_label = labelled(value)
        shape.lists = {"": by_label} if by_label else object_lists(value, wanted, shape.notes)
    return shape


def object_lists(value: Row, wanted: str | None, notes: list[str]) -> dict[str, Sequence[Row]]:
    """Return the lists in an object, or the object itself as a row if it is the document.

    It is, if it has a running text in the field `text` or in the wanted one, or more running text than all its lists.
    """
    inner = dict(lists_in(value, "", notes))
    if not inner:
        return {"": [value]}
    column, own = text_size([value], wanted)
    inside = sum(text_size(rows, wanted)[1] for rows in inner.values())
    if own and (own >= inside or (column in (TEXT, wanted) and is_running([cell_text(dict(flat(value))[column])]))):
        names = ", ".join(f"{name} ({len(rows):,})" for name, rows in inner.items())
        notes.append(f"lists of objects beside the text {column!r}, left out: {names}")
        return {"": [value]}
    if own:
        notes.append(f"text beside the lists of objects, left out: {column!r}")
    return inner


def lists_in(value: Row, before: str, notes: list[str]) -> Iterator[tuple[str, Sequence[Row]]]:
    """Yield the lists of objects below an object with their dotted names."""
    for name, item in value.items():
        if isinstance(item, list):
            yield from listed(f"{before}{name}", item, notes)
        elif isinstance(item, Mapping):
            yield from lists_in(item, f"{before}{name}.", notes)


def listed(name: str, value: Sequence[Any], notes: list[str]) -> Iterator[tuple[str, Sequence[Row]]]:
    """Yield a list with its objects, if it has any; what else it holds is counted in a note."""
    items = list(leaves(value))
    rows = [item for item in items if isinstance(item, dict)]
    if rows:
        yield name, rows
        if len(items) > len(rows):
            of = f" of {name!r}" if name else ""
            notes.append(f"items{of} left out, because they are no JSON objects: {len(items) - len(rows):,}")


def leaves(value: Sequence[Any]) -> Iterator[Any]:
    """Yield the items of a list and of the lists in it."""
    for item in value:
        if isinstance(item, list):
            yield from leaves(item)
        else:
            yield item


def labelled(value: Row) -> list[Row]:
    """Return the rows of a table that is written by labels of rows or of columns; empty if it is none.

    Each column maps the labels of rows to values, or else each label of a row maps the names of columns to values.
    """
    parts = list(value.values())
    if len(parts) < 2 or not all(isinstance(part, dict) and part.keys() == parts[0].keys() for part in parts):
        return []
    rows = list(parts[0])
    by_column = all(label.isdigit() for label in rows) or any(name.lower() in NAMES for name in value)
    return [{name: value[name][row] for name in value} for row in rows] if by_column and rows else parts


def text_size(rows: Sequence[Row], wanted: str | None) -> tuple[str, int]:
    """Return the column of text in a list and the number of its characters; nothing if no column holds text."""
    try:
        column = text_column(rows[:LOOKED_AT], wanted)
    except Unread:
        return "", 0
    return column, sum(len(cell_text(dict(flat(row)).get(column))) for row in rows)
