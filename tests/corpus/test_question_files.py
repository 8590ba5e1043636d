"""Question files in a user's folder become question sets wherever they lie, and never text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minigpt.corpus.question_files import question_files, questions_sentence
from tests.support.commands import run
from tests.support.mixed import prose

EXAM = {"question": "Which part of the heart pumps blood into the aorta?", "choices": ["left", "right"], "answer": 0}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty letters beside an exam in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "letters" / "a.jsonl", [{"text": prose(number, 300)} for number in range(40)])
    write(tmp_path / "letters" / "exams" / "2024.jsonl", [EXAM])
    return tmp_path / "letters"


def test_questions_are_known_by_their_name_or_by_their_rows(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "exam.jsonl", [EXAM, EXAM | {"question": "Another one?"}])
    write(tmp_path / "mcq_dev.jsonl", [EXAM])
    write(tmp_path / "a" / "mcq_x.jsonl", [EXAM])
    write(tmp_path / "b" / "mcq_x.jsonl", [EXAM])
    write(tmp_path / "other.jsonl", [EXAM])
    write(tmp_path / "text.jsonl", [EXAM | {"text": "A text."}])
    write(tmp_path / "part.jsonl", [EXAM, {"question": "No choices?"}])
    write(tmp_path / ".hidden" / "mcq_y.jsonl", [EXAM])
    write(tmp_path / "corpus_train.jsonl", [EXAM])
    files = question_files(tmp_path, [tmp_path / "corpus_train.jsonl"])
    sets = {item.file: (item.config.name, item.config.role, item.questions) for item in files.sets}
    assert sets == {
        "a/mcq_x.jsonl": ("x", "test", 1),
        "b/mcq_x.jsonl": ("x-2", "test", 1),
        "deep/exam.jsonl": ("exam", "test", 2),
        "mcq_dev.jsonl": ("dev", "dev", 1),
        "other.jsonl": ("other-2", "test", 1),
    }
    assert not files.skipped


def test_what_is_called_questions_and_is_none_blocks_nothing_and_has_its_reason(folder: Path) -> None:
    write(folder / "mcq_bad.jsonl", [EXAM, {"question": "And this?", "choices": ["a", "b"]}])
    created = run("domains", "new", "ward", "--from", "letters", "--json")
    assert created.exit_code == 0, created.stderr
    (item,) = json.loads(created.stdout)["skipped"]
    assert item["file"] == "mcq_bad.jsonl"
    assert item["reason"].startswith("it looks like questions, but line 2: no field 'answer'")
    assert "domain file" not in item["reason"]


def test_questions_below_a_folder_are_measured_and_not_trained_on(folder: Path) -> None:
    created = run("domains", "new", "ward", "--from", "letters", "--json")
    data = json.loads(created.stdout)
    assert data["questions"] == [{"name": "2024", "file": "exams/2024.jsonl", "questions": 1, "role": "test"}]
    assert [item["file"] for item in data["read"]] == ["a.jsonl"]
    assert "aorta" not in "".join(path.read_text() for path in Path("domains/ward.texts").rglob("*.jsonl"))
    assert run("domains", "validate", "ward").exit_code == 0
    stats = json.loads(run("corpus", "stats", "ward", "--json").stdout)
    assert [(item["name"], item["questions"]) for item in stats["questions"]] == [("2024", 1)]


def test_the_sentence_names_every_set(folder: Path) -> None:
    assert questions_sentence(()) == ""
    words = " ".join(run("domains", "new", "ward", "--from", "letters").stdout.split())
    assert "became one set, not text: 2024 (1 of exams/2024.jsonl). They only measure" in words


def test_one_source_is_kept_apart_beside_questions(folder: Path) -> None:
    sizes = {"a": 30, "b": 20, "c": 12, "d": 20}
    rows = [{"text": prose(f"{site}{n}", 99), "site": site} for site, size in sizes.items() for n in range(size)]
    write(folder / "a.jsonl", rows)
    data = json.loads(run("domains", "new", "ward", "--from", "letters", "--json").stdout)
    assert data["kept_apart"].startswith("The site 'c' is kept apart")


def test_one_file_of_questions_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mcq_heart.jsonl", [EXAM | {"question": f"{EXAM['question']} {n}"} for n in range(30)])
    write(tmp_path / "bad" / "mcq_x.jsonl", [EXAM, {"question": "And this?"}])
    write(tmp_path / "tasks.jsonl", [{"prompt": f"What is {n}?", "answer": "a number"} for n in range(30)])
    for file in ("mcq_heart.jsonl", "bad/mcq_x.jsonl", "tasks.jsonl"):
        refused = run("domains", "new", "heart", "--from", file)
        assert refused.exit_code == 1 and "holds no text that can be read" in refused.stderr
        assert not Path("domains").exists() or not list(Path("domains").iterdir())
    (item,) = question_files(tmp_path / "mcq_heart.jsonl").sets
    assert item.file == "mcq_heart.jsonl"


def test_questions_that_are_not_looked_for_are_named(folder: Path) -> None:
    write(folder / "exams" / "2024.jsonl", [EXAM, EXAM | {"question": "Which one?"}])
    words = " ".join(run("domains", "new", "ward", "--from", "letters").stdout.split())
    assert "Text that holds one of 1 of them is trained on all the same: they are too short" in words
    (item,) = question_files(folder).sets
    assert (item.questions, item.unguarded) == (2, 1)
