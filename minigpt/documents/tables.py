"""Tables of cells: which row has the names of the columns, and rows as mappings from names to values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain

from minigpt.documents.base import Row

# Longest name of a column.
LONGEST_NAME = 64


def named_rows(cells: Iterator[Sequence[object]]) -> Iterator[Row]:
    """Yield rows with the names of their columns: those of the first row if it looks like names, or else numbers."""
    first = next(cells, ())
    if is_header(first):
        names = [str(cell).strip() for cell in first]
    else:
        names = [f"column {number}" for number in range(1, len(first) + 1)]
        cells = chain([first], cells)
    for row in cells:
        if any(cell not in (None, "") for cell in row):
            yield dict(zip(names, row, strict=False))


def is_header(row: Sequence[object]) -> bool:
    """Return True if every cell of a row could name a column: short, different from the others, no number, no prose."""
    texts = [str(cell).strip() if cell is not None else "" for cell in row]
    while texts and not texts[-1]:
        texts.pop()
    short = all(text and len(text) <= LONGEST_NAME and len(text.split()) <= 6 for text in texts)
    return bool(texts) and short and len(set(texts)) == len(texts) and not any(map(_looks_like_data, texts))


def _looks_like_data(text: str) -> bool:
    """Return True for a number, a date, or the end of a sentence."""
    return bool(re.fullmatch(r"[\d.,:/%+-]+", text)) or text[-1] in ".!?"
