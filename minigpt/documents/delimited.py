"""CSV and TSV files: a row is a document."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator

from minigpt.documents.base import Source, Table
from minigpt.documents.encodings import text_of
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
    yield Table(rows=named_rows(iter(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))))


def delimiter_of(sample: str) -> str:
    """Return the delimiter with which the rows have most cells and the same number of them."""
    best, most = ",", 0.0
    for delimiter in DELIMITERS:
        widths = [len(row) for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if row]
        # The last row of a sample may be cut.
        widths = widths[:-1] or widths
        same = widths.count(widths[0]) / len(widths) if widths else 0.0
        if widths and widths[0] > 1 and same * same * widths[0] > most:
            best, most = delimiter, same * same * widths[0]
    return best
