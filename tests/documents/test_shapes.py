"""JSON documents of any shape lose no text, or say what they leave out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from minigpt.documents import jsons
from minigpt.documents.base import Skipped, Source, Unread
from minigpt.documents.convert import convert

LONG = "Many different words make this a sentence of some length, longer than any other one that stands here."
REMARKS = [{"by": "x", "body": "I agree with this very good note."}, {"by": "y", "body": "Please correct line four."}]


def read(value: Any, wanted: str | None = None) -> tuple[dict[str, list[Any]], list[str]]:
    """Rows of each list of a JSON file by its name, and the notes."""
    content = json.dumps(value).encode()
    file = Source(file="a.json", size=len(content), opener=lambda: io.BytesIO(content), wanted=wanted)
    return {table.name: list(table.rows) for table in jsons.read(file)}, file.notes


@pytest.mark.parametrize("name", ["text", "body"])
def test_an_object_with_its_own_text_is_the_document(name: str) -> None:
    value = {"title": "t", name: LONG, "comments": REMARKS}
    assert read(value) == ({"": [value]}, [f"lists of objects beside the text {name!r}, left out: comments (2)"])


def test_the_field_text_goes_before_lists_with_more_text() -> None:
    value = {"text": LONG, "comments": REMARKS * 20}
    assert read(value)[0] == {"": [value]}
    assert read({"summary": LONG, "comments": REMARKS * 20}, wanted="summary")[0].keys() == {""}
    assert read({"summary": LONG, "comments": REMARKS}, wanted="body")[0] == {"": REMARKS}


def test_a_remark_on_an_export_does_not_replace_its_rows() -> None:
    rows = [{"body": f"{LONG} {number}"} for number in range(9)]
    for remark in ({"text": "Export"}, {"description": "All letters that were written in the ward."}):
        value, notes = read({**remark, "letters": rows})
        assert value == {"": rows} and notes == [f"text beside the lists of objects, left out: {next(iter(remark))!r}"]
    assert read({"version": 2, "response": {"docs": rows}}) == ({"": rows}, [])


def test_every_list_of_objects_is_read(tmp_path: Path) -> None:
    letters, reports = [{"text": f"{LONG} {n}"} for n in range(3)], [{"body": f"{LONG} {n}"} for n in range(4, 6)]
    value = {"letters": letters, "reports": reports, "codes": [{"code": 3}], "years": [2020]}
    assert read(value)[0] == {"letters": letters, "reports": reports, "codes": [{"code": 3}]}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text(json.dumps(value))
    reading = convert(tmp_path / "in", tmp_path / "out")
    assert reading.documents == 5 and reading.files[0].column == "text, body"
    assert [item.file for item in reading.skipped] == ["a.json, list codes"]
    assert isinstance(reading.skipped[0], Skipped) and "no field with text" in reading.skipped[0].reason


def test_items_that_are_no_objects_are_counted_and_inner_lists_are_opened() -> None:
    row = {"text": LONG}
    assert read([row, "a string", 3]) == ({"": [row]}, ["items left out, because they are no JSON objects: 2"])
    assert read({"a": [row, None]})[1] == ["items of 'a' left out, because they are no JSON objects: 1"]
    assert read([[row], [[row]]]) == ({"": [row, row]}, [])
    for value in (["a string"], "a string", 3, [], [[]]):
        with pytest.raises(Unread, match="no JSON object"):
            read(value)


def test_tables_by_columns_and_by_labels_are_tables() -> None:
    rows = [{"Befund": f"{LONG} {number}", "site": "north"} for number in range(3)]
    by_column = {name: {str(number): row[name] for number, row in enumerate(rows)} for name in rows[0]}
    assert read(by_column) == ({"": rows}, [])
    assert read({f"case-{number}": row for number, row in enumerate(rows)}) == ({"": rows}, [])
    single = {"patient": {"name": "Jo"}, "note": {"body": LONG}}
    assert read(single) == ({"": [single]}, [])
