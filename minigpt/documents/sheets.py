"""Excel workbooks: a sheet is a table, a row is a document."""

from __future__ import annotations

from collections.abc import Iterator

from minigpt.documents.base import Source, Table
from minigpt.documents.packages import package
from minigpt.documents.tables import named_rows


def read(source: Source) -> Iterator[Table]:
    """Yield the sheets that hold something, with the values that formulas had when the file was saved."""
    from openpyxl import load_workbook

    workbook = load_workbook(package(source), read_only=True, data_only=True, keep_links=False)
    for sheet in workbook.worksheets:
        yield Table(name=sheet.title, rows=named_rows(sheet.iter_rows(values_only=True), source))
    workbook.close()
