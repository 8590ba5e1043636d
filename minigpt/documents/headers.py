"""The row of a table that has the names of its columns, also below a title, and the names that it gives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from minigpt.documents.columns import NAMES

Cells = Sequence[object]

# Longest name of a column, in characters and words.
LONGEST_NAME = 64
MOST_WORDS = 6
# Rows in which the names are looked for: titles may stand above them.
HIGHEST = 5
# Share of the rows with the same number of cells from which lines are cut into columns rightly.
REGULAR = 0.8


def text_in(cell: object) -> str:
    """Return a cell as text, empty for an empty one."""
    return str(cell).strip() if cell is not None else ""


def width(row: Cells) -> int:
    """Return the number of cells up to the last one that holds something."""
    return max((number for number, cell in enumerate(row, start=1) if text_in(cell)), default=0)


def filled(row: Cells) -> int:
    """Count the cells that hold something."""
    return sum(bool(text_in(cell)) for cell in row)


def regular(rows: Sequence[Cells], share: float = REGULAR) -> bool:
    """Return True if so many of the rows have the same number of cells."""
    widths = Counter(map(width, rows))
    return max(widths.values(), default=0) >= share * len(rows)


def header_place(rows: Sequence[Cells], *, wanted: str | None, cut: bool) -> int | None:
    """Find the row with the names of the columns.

    Args:
        rows: The first rows that hold something.
        wanted: The column of text that the user names.
        cut: True if lines were cut at a delimiter, so that cells may be parts of a sentence.

    Returns:
        Its place, None if there is none.
    """
    for place, row in enumerate(rows[:HIGHEST]):
        named = wanted is not None and wanted in map(text_in, row)
        if named and all(filled(above) < filled(row) for above in rows[:place]):
            return place
    if not rows:
        return None
    first = rows[0]
    usual = has_usual_name(first, rows[1:2])
    for place in range(1, min(HIGHEST, len(rows)) if filled(first) == 1 and not (usual and cut) else 0):
        row, below = rows[place], rows[place + 1 :]
        if filled(row) > 1:
            names = is_header(row) and (regular(rows[place:]) or not cut)
            if below and (names or has_usual_name(row, below[:1])):
                return place
            break
    alone = filled(first) == 1 and not cut and any(filled(row) > 1 for row in rows)
    return 0 if (usual or is_header(first)) and not alone else None


def is_header(row: Cells) -> bool:
    """Return True if the cells could name columns: short, different, no numbers, no prose, and at most half empty."""
    texts = [text for cell in row[: width(row)] if (text := text_in(cell))]
    data = any(not isinstance(cell, str) for cell in row if text_in(cell)) or any(map(_looks_like_data, texts))
    whole = bool(texts) and len(set(texts)) == len(texts) >= width(row) / 2
    return whole and not data and all(map(_is_short, texts))


def has_usual_name(row: Cells, below: Sequence[Cells]) -> bool:
    """Return True for short cells with a usual name among them, such as `text`, that are not kinds of documents.

    Args:
        row: The row.
        below: The row below it, if there is one. It has a usual name in the same cell where that is a document's kind.
    """
    texts = [text_in(cell) for cell in row]
    under = [text_in(cell).lower() for cell in below[0]] if below else []
    usual = [place for place, text in enumerate(texts) if text.lower() in NAMES]
    kinds = any(place < len(under) and under[place] in NAMES for place in usual)
    return bool(usual) and not kinds and all(_is_short(text) and text[-1:] not in tuple(".!?") for text in texts)


def names_in(row: Cells) -> list[str]:
    """Name the columns by a row: an empty cell by its number, and a name that another column has with a number."""
    names: list[str] = []
    for number, cell in enumerate(row[: width(row)], start=1):
        name = again = text_in(cell) or numbered(number)
        copies = 1
        while again in names:
            copies += 1
            again = f"{name} {copies}"
        names.append(again)
    return names


def numbered(number: int) -> str:
    """Name a column that has no name."""
    return f"column {number}"


def _is_short(text: str) -> bool:
    """Return True for a text that is not too long for a name."""
    return len(text) <= LONGEST_NAME and len(text.split()) <= MOST_WORDS


def _looks_like_data(text: str) -> bool:
    """Return True for a number, a date, or the end of a sentence."""
    return bool(re.fullmatch(r"[\d.,:/%+-]+", text)) or text[-1] in ".!?"
