"""A domain is called valid only after its own files were read and counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt.corpus.readable import readable
from minigpt.domain.config import load_domain


def findings(folder: Path, corpus: str, more: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    (folder / "x.yaml").write_text(f"name: x\ncorpus:\n{corpus}\n{more}")
    result = readable(load_domain(str(folder / "x.yaml")))
    return result.problems, result.remarks


def texts(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.txt").write_text(f"Letter {number} is about valves, vessels and number {number * 7}.")
    return folder


@pytest.mark.parametrize("count", [1, 3])
def test_text_that_cannot_be_divided_is_a_problem(tmp_path: Path, count: int) -> None:
    texts(tmp_path / "in", count)
    problems, _ = findings(tmp_path, "  - {name: a, file: in}")
    assert len(problems) == 1
    assert f"need 4 documents and {count} {'is' if count == 1 else 'are'} left" in problems[0]


def test_few_documents_are_a_remark_and_enough_are_none(tmp_path: Path) -> None:
    texts(tmp_path / "in", 50)
    problems, remarks = findings(tmp_path, "  - {name: a, file: in}")
    assert problems == ()
    assert "About 5 documents will be held out for measuring: too few" in remarks[0]
    texts(tmp_path / "heldout", 40)
    assert findings(tmp_path, "  - {name: a, file: in}\n  - {name: b, file: heldout, split: heldout}") == ((), ())


def test_a_wrong_column_and_a_wrong_kind_of_file_are_problems(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"note": "Some text."}\n')
    (tmp_path / "rows.csv").write_text("note\nSome text.\n")
    problems, _ = findings(
        tmp_path, "  - {name: a, file: rows.jsonl, columns: {text: nothing}}\n  - {name: b, file: rows.csv}"
    )
    assert "no field 'nothing'" in problems[0]
    assert "rows.csv" in problems[1]


def test_questions_that_cannot_be_read_are_a_problem(tmp_path: Path) -> None:
    texts(tmp_path / "in", 50)
    (tmp_path / "q.jsonl").write_text('{"question": "Why?"}\n')
    problems, _ = findings(tmp_path, "  - {name: a, file: in}", "questions: [{name: q, file: q.jsonl}]\n")
    assert len(problems) == 1 and problems[0].startswith("q: ")


def test_sources_that_may_have_to_be_fetched_are_not_read(tmp_path: Path) -> None:
    assert findings(tmp_path, "  - {name: a, reader: hpo, ref: 'pypi:nobody==1.0/a.obo'}") == ((), ())
