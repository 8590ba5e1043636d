"""Kept scores: what is read again, what is not, and what a damaged file does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minigpt.evaluation import ItemScores, QuestionItems, Suite, TextItems
from minigpt.evaluation.kept import FOLDER, evaluate_kept
from minigpt.types import Document, Question, QuestionSet
from tests.support.healing import Notes

SECRET = "The patient Jane Roe was admitted at night."
TEXTS = {
    "field": (Document(text=SECRET, source="ward-7"), Document(text="A second page.", source="ward-8")),
    "general": (Document(text="A general remark.", source="talk"),),
}
QUESTIONS = {
    "general/words": QuestionSet(
        name="words", role="test", questions=(Question(question="Night?", choices=("day", "dark"), answer=1),)
    )
}
SUITE = Suite(texts=TEXTS, questions=QUESTIONS)
CONDITIONS: dict[str, object] = {"model": "abc", "opening": 1}


class Measure:
    """A stand-in for evaluating a model, which remembers what it was given and never gives the same bits twice."""

    def __init__(self) -> None:
        self.parts: list[list[str]] = []
        self.bits = 1.0 / 3

    def __call__(self, part: Suite) -> ItemScores:
        self.parts.append([*part.texts, *part.questions])
        self.bits += 0.1
        texts = {}
        for task, documents in part.texts.items():
            n = len(documents)
            keys = tuple(document.source for document in documents)
            texts[task] = TextItems(keys=keys, bits=(self.bits,) * n, bytes=(9,) * n, words=(2,) * n, tokens=(3,) * n)
        questions = {
            task: QuestionItems(keys=("q",), answers=(1,), picks=(0,), picks_norm=(1,), chance=0.5)
            for task in part.questions
        }
        return ItemScores(texts=texts, questions=questions)


@pytest.fixture
def files(home: Path) -> Path:
    """The folder of kept scores, which nothing has written yet."""
    return home / "home" / FOLDER


def test_a_second_build_reads_exactly_what_the_first_one_measured(files: Path) -> None:
    measure, notes = Measure(), Notes()
    first = evaluate_kept(SUITE, measure, CONDITIONS)
    assert measure.parts == [["field", "general", "general/words"]]
    assert evaluate_kept(SUITE, measure, CONDITIONS, reporter=notes) == first
    assert len(measure.parts) == 1 and len(list(files.iterdir())) == 3
    assert notes.notes == ["Measured by an earlier build: field, general, general/words."]


def test_another_domain_shares_the_general_text_and_nothing_else(files: Path) -> None:
    measure = Measure()
    first = evaluate_kept(SUITE, measure, CONDITIONS)
    other = {"law": (Document(text="A statute.", source="code"),), "general": TEXTS["general"]}
    second = evaluate_kept(Suite(texts=other, questions=QUESTIONS), measure, CONDITIONS)
    assert measure.parts[1] == ["law"]
    assert second.texts["general"] == first.texts["general"] and list(second.texts) == ["law", "general"]
    assert second.questions == first.questions


@pytest.mark.parametrize("change", [{"model": "abd"}, {"opening": 2}, {"device": "cuda"}])
def test_another_model_opening_or_device_is_measured(files: Path, change: dict[str, object]) -> None:
    measure = Measure()
    evaluate_kept(SUITE, measure, CONDITIONS)
    evaluate_kept(SUITE, measure, CONDITIONS | change)
    assert len(measure.parts) == 2 and len(measure.parts[1]) == 3


def test_changed_text_or_questions_are_measured(files: Path) -> None:
    measure = Measure()
    evaluate_kept(SUITE, measure, CONDITIONS)
    changed = Document(text=SECRET.replace("night", "noon"), source="ward-7")
    asked = QuestionSet(
        name="words", role="test", questions=(Question(question="Night?", choices=("day", "dark"), answer=0),)
    )
    suite = Suite(texts=TEXTS | {"field": (changed, *TEXTS["field"][1:])}, questions={"general/words": asked})
    evaluate_kept(suite, measure, CONDITIONS)
    assert measure.parts[1] == ["field", "general/words"]


def test_measuring_anew_replaces_what_was_kept(files: Path) -> None:
    measure = Measure()
    first = evaluate_kept(SUITE, measure, CONDITIONS)
    second = evaluate_kept(SUITE, measure, CONDITIONS, anew=True)
    assert first != second == evaluate_kept(SUITE, measure, CONDITIONS)
    assert len(measure.parts) == 2


def cut(text: str) -> str:
    """The first half of a file, as after a full disk."""
    return text[: len(text) // 2]


def other_bits(text: str) -> str:
    """A file with another number of bits."""
    record = json.loads(text)
    record["items"]["bits"][0] += 1e-6
    return json.dumps(record)


def other_key(text: str) -> str:
    """A file that was renamed: what it holds is in order, but of another task."""
    return json.dumps(json.loads(text) | {"key": "0" * 16})


@pytest.mark.parametrize("damage", [cut, other_bits, other_key, lambda text: "", lambda text: "[]"])
def test_a_damaged_file_is_measured_again_and_replaced(files: Path, damage: Any) -> None:
    measure = Measure()
    first = evaluate_kept(SUITE, measure, CONDITIONS)
    path = next(path for path in files.iterdir() if "ward-7" in path.read_text())
    path.write_text(damage(path.read_text()))
    again = evaluate_kept(SUITE, measure, CONDITIONS)
    assert measure.parts[1] == ["field"]
    assert again.texts["field"] != first.texts["field"] and again.texts["general"] == first.texts["general"]
    assert evaluate_kept(SUITE, measure, CONDITIONS) == again and len(measure.parts) == 2


def test_files_hold_names_of_sources_and_numbers_but_no_text(files: Path) -> None:
    evaluate_kept(SUITE, Measure(), CONDITIONS)
    held = "".join(path.name + path.read_text() for path in files.iterdir())
    assert "ward-7" in held
    assert not any(word in held for word in ("patient", "Jane", "second", "Night", "dark", "field"))


def test_a_folder_that_cannot_be_written_stops_nothing(home: Path) -> None:
    (home / "home").mkdir()
    (home / "home" / FOLDER).write_text("a file where the folder should be")
    measure, notes = Measure(), Notes()
    scores = evaluate_kept(SUITE, measure, CONDITIONS, reporter=notes)
    assert set(scores.texts) == {"field", "general"}
    assert any("not kept for later builds" in note for note in notes.notes)
