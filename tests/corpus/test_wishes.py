"""Wishes of `domains new` that cannot be honored are refused, and those for declared splits are carried out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minigpt.corpus import build_corpus
from minigpt.domain.config import load_domain
from tests.support.commands import run
from tests.support.mixed import prose


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Letters of ten patients, and a folder with declared splits whose text is the column `body`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letters").mkdir()
    rows = [{"text": prose(f"{n}"), "source": f"patient {n % 10}"} for n in range(60)]
    (tmp_path / "letters" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split in ("train", "heldout"):
        rows = [{"body": prose(f"{split}{n}", 60)} for n in range(20)]
        (tmp_path / "splits").mkdir(exist_ok=True)
        (tmp_path / "splits" / f"corpus_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("letters", "--group-by", "none", "--hold-out", "patient 3"), "leave one of them out"),
        (("splits", "--text-column", "body", "--hold-out", "zz"), "so --hold-out 'zz' cannot be honored"),
        (("splits", "--text-column", "body", "--group-by", "site"), "so --group-by 'site' cannot be honored"),
        (("splits",), "no field 'text'; the fields are body. Name the column: --text-column body."),
        (("splits", "--text-column", "note"), "no field 'note'; the fields are body. Name the column: --text-column"),
    ],
)
def test_what_cannot_be_honored_is_refused(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    refused = run("domains", "new", "mine", "--from", *arguments)
    assert refused.exit_code == 1 and message in " ".join(refused.stderr.split())
    assert not Path("domains").exists() or not list(Path("domains").iterdir())


def test_the_column_of_declared_splits_stands_in_the_domain_file(folder: Path) -> None:
    created = run("domains", "new", "mine", "--from", "splits", "--text-column", "body", "--group-by", "none", "--json")
    assert created.exit_code == 0, created.stderr
    assert {item["column"] for item in json.loads(created.stdout)["read"]} == {"body"}
    domain = load_domain("domains/mine.yaml")
    assert [source.columns for source in domain.corpus] == [{"text": "body"}] * 2
    assert len(build_corpus(domain).heldout) == 20


def test_rows_of_tables_are_not_called_documents(folder: Path) -> None:
    words = " ".join(run("init", "letters", "--name", "mine", "--yes").stdout.split())
    assert "Read 1 file: 60 rows" in words and "with their rows: 1 JSON Lines (60)" in words
    assert "Text: 10 documents" in words
    (folder / "letters" / "b.txt").write_text(prose("b"))
    words = " ".join(run("domains", "new", "more", "--from", "letters").stdout.split())
    assert "Read 2 files: 1 document and 60 rows" in words and "with their documents or rows" in words


@pytest.mark.parametrize("arguments", [("x" * 121,), ("x" * 115, "--general", "letters")])
def test_a_name_that_is_too_long_is_refused_for_its_length(folder: Path, arguments: tuple[str, ...]) -> None:
    refused = run("domains", "new", *arguments, "--from", "letters")
    words = " ".join(refused.stderr.split())
    assert refused.exit_code == 1 and "characters, and at most 120 can be used." in words
    assert "/" not in words and "small letters" not in words
    assert run("domains", "new", "x" * 120, "--from", "letters").exit_code == 0
