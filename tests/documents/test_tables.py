"""Tables as programs and people write them: headers of all kinds, and text with commas that nobody quoted."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from minigpt.documents import delimited, sheets
from minigpt.documents.base import Source
from minigpt.documents.convert import convert
from minigpt.documents.delimited import delimiter_of
from minigpt.documents.tables import named_rows
from tests.support import mixed

LINES = [
    "The patient came in on foot, with pain in the chest, and stayed.",
    "Nothing was seen today.",
    "Fever, cough, and a rash were noted, said the nurse.",
    "She left on Monday, in good health.",
]


def source(content: bytes = b"", file: str = "a.csv", wanted: str | None = None) -> Source:
    return Source(file=file, size=len(content), opener=lambda: io.BytesIO(content), wanted=wanted)


def read(text: str, wanted: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of a CSV file, and its notes."""
    file = source(text.encode(), wanted=wanted)
    rows = [dict(row) for table in delimited.read(file) for row in table.rows]
    return rows, file.notes


def test_unquoted_commas_divide_no_text_if_there_is_one_column() -> None:
    for name in ("text", "Befund"):
        rows, notes = read("\n".join([name, *LINES]))
        assert rows == [{name: line} for line in LINES]
        assert notes == [f"rows with more cells than columns: 3; the rest was joined to {name!r}"]
    same = ["Pain, and fever came at once.", "Cough, and a rash came at once."]
    assert read("\n".join(["text", *same * 5]))[0] == [{"text": line} for line in same * 5]


def test_unquoted_commas_in_a_text_column_that_is_the_last_are_joined() -> None:
    for name in ("note", "Befund"):
        rows, _ = read("\n".join([f"id,{name}", *(f"{number},{line}" for number, line in enumerate(LINES))]))
        assert rows == [{"id": str(number), name: line} for number, line in enumerate(LINES)]
    short = ["Hi, said the old man to everybody there.", "Yes, said nobody at all on that day."]
    assert [row["Befund"] for row in read("\n".join(["id,Befund", *(f"7,{line}" for line in short)]))[0]] == short


def test_rows_that_are_too_wide_are_counted_where_the_text_stands_elsewhere() -> None:
    rows, notes = read("id,note,author\n1,Nothing was seen on that day.,Jo\n2,Pain, and fever, and cough.,Al\n")
    assert rows[0] == {"id": "1", "note": "Nothing was seen on that day.", "author": "Jo"}
    assert notes == ["rows with more cells than columns: 1"]
    assert read("id,note\n1,Nothing seen.,,\n")[1] == []  # empty cells at the end are none


def test_lines_without_a_header_that_commas_cut_stay_whole() -> None:
    lines = [*LINES, "One, two, three, four, five and six.", "A, b, c, d, e, f, and so on to the end."]
    assert [row["column 1"] for row in read("\n".join(lines))[0]] == lines


def test_the_header_that_pandas_writes_is_recognized(tmp_path: Path) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerows([["", "text", "author"], *([n, line, "Jo"] for n, line in enumerate(LINES))])
    assert read(stream.getvalue())[0][0] == {"column 1": "0", "text": LINES[0], "author": "Jo"}
    unusual = stream.getvalue().replace("text", "Befund")
    assert read(unusual)[0][0] == {"column 1": "0", "Befund": LINES[0], "author": "Jo"}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "df.csv").write_text(stream.getvalue())
    reading = convert(tmp_path / "in", tmp_path / "out", column="text", keep=("author",))
    rows = [json.loads(line) for line in (tmp_path / "out" / "texts.jsonl").read_text().splitlines()]
    assert [(row["text"], row["author"]) for row in rows] == [(line, "Jo") for line in LINES] and not reading.skipped


def test_a_usual_or_wanted_name_makes_a_header_of_a_row_with_numbers() -> None:
    assert read("2020,note\n3,Nothing seen.\n")[0] == [{"2020": "3", "note": "Nothing seen."}]
    assert read("2020,Befund\n3,Nothing seen.\n", wanted="Befund")[0] == [{"2020": "3", "Befund": "Nothing seen."}]
    # A kind of document in a table without a header is no name.
    assert len(read("1,note,Nothing seen.\n2,note,Pain.\n3,report,Fever.\n")[0]) == 3
    assert len(read("1,note,Nothing\n2,note,Pain\n3,report,Fever\n")[0]) == 3


def test_names_that_repeat_are_numbered() -> None:
    assert read("text,text,text 2\na,b,c\n")[0] == [{"text": "a", "text 2": "b", "text 2 2": "c"}]


def test_a_title_above_the_header_swallows_no_columns() -> None:
    for delimiter in ",;":
        text = "\n".join(
            ["Notes of the ward", "", "id;Befund;site", *(f"{n};Nothing was seen.;north" for n in range(9))]
        )
        rows, notes = read(text.replace(";", delimiter))
        assert rows[0] == {"id": "0", "Befund": "Nothing was seen.", "site": "north"} and len(rows) == 9
        assert notes == ["rows above the names of the columns, left out: 1"]


def test_a_title_and_unquoted_commas_may_come_together() -> None:
    rows, _ = read(
        "\n".join(["Ward", "as of May", "id,note", *(f"{number},{line}" for number, line in enumerate(LINES))])
    )
    assert rows == [{"id": str(number), "note": line} for number, line in enumerate(LINES)]


def book(*rows: list[Any], wanted: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of an Excel sheet, and the notes."""
    file = source(mixed.xlsx({"A": rows}), "a.xlsx", wanted)
    return [dict(row) for table in sheets.read(file) for row in table.rows], file.notes


def test_headers_of_excel_have_empty_cells_and_titles() -> None:
    rows, _ = book(["id", None, "note"], [1, "x", "One."], [2, None, "Two."])
    assert rows == [{"id": 1, "column 2": "x", "note": "One."}, {"id": 2, "note": "Two."}]
    rows, notes = book(["Ward 3"], [None], ["as of May"], ["id", "Befund"], [1, "One was seen."], [2, "Two were seen."])
    assert rows == [{"id": 1, "Befund": "One was seen."}, {"id": 2, "Befund": "Two were seen."}]
    assert notes == ["rows above the names of the columns, left out: 2"]
    rows, _ = book(["id", "Befund"], [1, "One."], [2, "Two.", "and more"])
    assert rows == [{"id": 1, "Befund": "One."}, {"id": 2, "Befund": "Two.", "column 3": "and more"}]
    # A title above a table without names takes no name from its columns.
    assert book(["Ward"], [1, "One was seen."], [2, "Two were seen."])[0][1:] == [
        {"column 1": 1, "column 2": "One was seen."},
        {"column 1": 2, "column 2": "Two were seen."},
    ]
    rows, _ = book(["Ward", None, "May"], ["nr", "Befund", 2020], [1, "One was seen.", 5], wanted="Befund")
    assert rows == [{"nr": 1, "Befund": "One was seen.", "2020": 5}]


@pytest.mark.parametrize("rows", [[], [[]], [[""], [None, " "]]])
def test_tables_without_anything_have_no_rows(rows: list[list[Any]]) -> None:
    assert list(named_rows(rows, source())) == list(named_rows(rows, source(), ",")) == []


def test_a_title_does_not_hide_the_delimiter() -> None:
    assert delimiter_of("Ward\nid;note\n1;One\n2;Two, three\n3;x\n4;x\n5;x\n6;x\n7;x\n8;x\n") == ";"
