"""`minigpt init` asks on a terminal and takes its answers from options elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minigpt.cli import init as module
from minigpt.corpus import survey
from minigpt.report import figures
from tests.support.commands import run
from tests.support.mixed import docx

LETTER = "The patient was admitted with pain in the chest and sent home after two days. Call +49 30 1234567. "


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    letters = tmp_path / "Ward 5 Letters"
    letters.mkdir()
    for number in range(120):
        (letters / f"{number}.txt").write_text(f"Letter {number}. " + LETTER * 20 + f"End of letter {number}.")
    (letters / "last.docx").write_bytes(docx(["Write to jo@example.org about the visit of last week."]))
    (letters / "photo.jpg").write_bytes(b"x")
    return letters


def test_without_a_terminal_it_wants_the_answers_as_options(folder: Path) -> None:
    for arguments in ((), (str(folder),), (str(folder), "--name", "x"), ("--name", "x", "--yes")):
        refused = run("init", *arguments)
        assert refused.exit_code == 2 and "give FOLDER, --name and --yes" in refused.stderr
    assert not Path("domains").exists()


def test_options_give_the_answers(folder: Path) -> None:
    result = run("init", str(folder), "--name", "ward", "--yes", "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    text = data["survey"]
    assert (text["documents"], text["enough"]) == (121, True)
    assert max(text["languages"], key=text["languages"].get) == "en"
    assert text["personal"] == {
        "e-mail addresses": {"documents": 1, "places": 1},
        "phone numbers": {"documents": 120, "places": 2400},
    }
    assert text["remarks"][0].startswith("About 12 documents will be held out for measuring: enough for a verdict, but")
    assert [item["file"] for item in data["skipped"]] == ["photo.jpg"]
    assert "minigpt build --domain ward --preset quick" in data["next"]
    assert run("domains", "validate", "ward").exit_code == 0


def test_commands_can_be_pasted_whatever_the_folder_is_called(folder: Path) -> None:
    result = run("init", str(folder), "--name", "ward", "--output", "my domains", "--yes", "--json")
    assert "minigpt corpus stats 'my domains/ward.yaml'" in json.loads(result.stdout)["next"]
    shown = " ".join(run("domains", "new", "x", "--from", str(folder), "--output", "my domains").stdout.split())
    assert "minigpt build --domain 'my domains/x.yaml'" in shown


def test_a_terminal_is_asked_and_personal_data_are_never_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_terminal", lambda: True)
    result = run("init", input=f"nowhere\n{folder}\nNo Name\n\ny\n")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "'nowhere' does not exist" in words and "'No Name' cannot name a domain" in words
    assert "holds 1 Word, 1 not read, 120 text." in words
    assert "Name of the domain [ward-5-letters]" in words
    assert "phone numbers: 2,400 in 120 documents" in words
    assert "1234567" not in words and "jo@example.org" not in words
    assert "minigpt build --domain ward-5-letters --preset quick" in words
    again = run("init", str(folder), "--name", "other", input="n\n")
    assert again.exit_code == 1 and not Path("domains/other.yaml").exists()


def test_the_bounds_are_those_of_the_report() -> None:
    assert (survey.JUDGED, survey.COMFORTABLE) == (figures.ENOUGH_ITEMS, figures.COMFORTABLE_ITEMS)
    assert "too few" in survey.documents_remark(9) and survey.documents_remark(30).endswith("enough for a verdict.")
    assert "too little" in survey.size_remark(1000) and "enough text" in survey.size_remark(5_000_000)
