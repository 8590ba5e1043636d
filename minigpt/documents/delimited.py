"""CSV and TSV files: a row is a document."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator

from minigpt.documents.base import Source, Table
from minigpt.documents.encodings import text_of
from minigpt.documents.headers import REGULAR
from minigpt.documents.tables import named_rows

DELIMITERS = ",;\t|"
SAMPLE = 1 << 16


def read(source: Source) -> Iterator[Table]:
    """Yield the table of a file. The delimiter is found in its beginning."""
    text = text_of(source)
    csv.field_size_limit(min(sys.maxsize, 1 << 30))
    delimiter = "\t" if source.file.lower().endswith(".tsv") else delimiter_of(text[:SAMPLE])
    # Excel names the delimiter in a line of its own.
    if named := re.match(r"sep=(.)\r?\n", text):
        delimiter, text = named[1], text[named.end() :]
    yield Table(rows=named_rows(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), source, delimiter))


def delimiter_of(sample: str) -> str:
    """Return the delimiter with which the rows have most cells and the same number of them.

    That number is the first row's, or most rows' if the first row is a title, which no delimiter divides.
    """
    widths = {mark: items for mark in DELIMITERS if (items := widths_with(mark, sample))}
    first = {mark: items[0] for mark, items in widths.items()}
    usual = {mark: Counter(items).most_common(1)[0][0] for mark, items in widths.items()}
    for cells, least in ((first, 0.0), (usual, REGULAR)):
        same = {mark: items.count(cells[mark]) / len(items) for mark, items in widths.items()}
        fit = [mark for mark in widths if cells[mark] > 1 and same[mark] >= least]
        if fit:
            return max(fit, key=lambda mark: same[mark] ** 2 * cells[mark])
    return DELIMITERS[0]


def widths_with(delimiter: str, sample: str) -> list[int]:
    """Return the numbers of cells of the rows. The last row of a sample may be cut."""
    widths = [len(row) for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if row]
    return widths[:-1] or widths
