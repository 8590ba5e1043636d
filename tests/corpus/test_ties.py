"""Rows that share a source stay in one split, and a source kept apart is kept apart however it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minigpt.corpus import build_corpus
from minigpt.corpus.newdomain import Grouped, NewDomain, new_domain
from minigpt.corpus.rows import is_wanted, name_in
from minigpt.corpus.tasks import divided
from minigpt.corpus.ties import FEWEST_TIED
from minigpt.domain.config import load_domain
from minigpt.domain.tasks import TaskConfig
from minigpt.types import AnswerTask, Prompt
from tests.support.commands import run
from tests.support.mixed import prose

SPLITS = ("train", "calibration", "dev", "heldout", "other")


def letters(folder: Path, sources: list[Any], count: int = 12, column: str = "source") -> dict[str, Any]:
    """Write `count` letters of each source, and return the source of each text."""
    rows = [{"text": prose(f"{at}/{n}", 60), column: name} for at, name in enumerate(sources) for n in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {row["text"]: row[column] for row in rows}


def new(folder: Path, **wishes: Any) -> NewDomain:
    return new_domain("mine", folder, output=folder.with_suffix(".yaml"), grouped=Grouped(**wishes), force=True)


def sides(written: NewDomain, owners: dict[str, Any]) -> dict[str, set[Any]]:
    """Sources of the texts of each split."""
    corpus = build_corpus(load_domain(str(written.path)))
    return {split: {owners[document.text] for document in getattr(corpus, split)} for split in SPLITS}


def patients(count: int) -> list[str]:
    return [f"patient {number}" for number in range(count)]


@pytest.mark.parametrize("count", [FEWEST_TIED + 1, 10])
@pytest.mark.parametrize("apart", [None, "patient 3"])
def test_rows_of_a_patient_never_land_in_two_splits(tmp_path: Path, count: int, apart: str | None) -> None:
    owners = letters(tmp_path / "texts", patients(count))
    written = new(tmp_path / "texts", apart=apart)
    assert f"stay in one split, so the {count - 1} other sources are as many documents" in written.ties
    assert "a report gives no verdict on fewer than 10, so add text of more of them" in written.ties
    parts = sides(written, owners)
    assert all(parts.values()) and sum(map(len, parts.values())) == count == len(set().union(*parts.values()))
    assert len(parts["other"]) == 1 and (apart is None or parts["other"] == {apart})
    kept, other = load_domain(str(written.path)).corpus
    assert not kept.row_documents and other.row_documents  # else the report judges nothing by one document
    assert len(build_corpus(load_domain(str(written.path))).other) == 12


def test_too_few_sources_are_untied_and_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    owners = letters(tmp_path / "texts", patients(FEWEST_TIED), 30)
    shown = " ".join(run("domains", "new", "few", "--from", "texts").stdout.split())
    assert f"because the {FEWEST_TIED - 1} other sources are too few to split whole: rows with the same source" in shown
    assert "remove `row_documents` from the first entry of the domain file and add text until at least 6" in shown
    written = new(tmp_path / "texts")
    parts = sides(written, owners)
    assert len(parts["train"]) == FEWEST_TIED - 1 and not parts["other"] & parts["train"]
    assert len(load_domain(str(written.path)).corpus) == 2
    data = json.loads(run("domains", "new", "few", "--from", "texts", "--force", "--json").stdout)
    assert data["ties"] == written.ties


def test_a_user_who_names_the_column_has_every_row_alone(tmp_path: Path) -> None:
    owners = letters(tmp_path / "texts", patients(10))
    written = new(tmp_path / "texts", column="source")
    assert "as you named source as the column of groups" in written.ties
    parts = sides(written, owners)
    assert len(parts["train"]) == 9 and not parts["train"] & parts["other"]


def test_other_columns_leave_the_ties_alone(tmp_path: Path) -> None:
    owners = letters(tmp_path / "texts", ["a", "b", "c", "d"], 15, column="site")
    written = new(tmp_path / "texts")
    assert written.ties == "" and "site" in written.apart
    assert sides(written, owners)["other"] <= set("abcd")


@pytest.mark.parametrize("column", ["author", "source"])
def test_white_space_around_a_value_does_not_count(tmp_path: Path, column: str) -> None:
    clinics = [f"{' ' * (turn % 2)}Clinic {number}{' ' * turn}" for number in range(8) for turn in range(3)]
    owners = letters(tmp_path / "texts", clinics, 8, column=column)
    written = new(tmp_path / "texts", apart="Clinic 2")
    assert "(24 documents" in written.apart
    parts = {split: {name.strip() for name in names} for split, names in sides(written, owners).items()}
    assert parts["other"] == {"Clinic 2"}
    assert len(build_corpus(load_domain(str(written.path))).other) == 24
    assert not any("Clinic 2" in parts[split] for split in SPLITS if split != "other")
    if column == "source":  # the three spellings are one document
        assert sum(map(len, parts.values())) == 8


def test_values_of_a_domain_file_are_compared_without_white_space() -> None:
    row = {"author": " Clinic 2\u00a0", "date": " 2024-01-02", "text": "x"}
    for value in ("Clinic 2", "Clinic 2 ", "Clin*", "\tClinic 2"):
        assert is_wanted(row, {"author": (value,)}, {}) and not is_wanted(row, {}, {"author": (value,)})
    assert is_wanted(row, {"date": ("2024*",)}, {}) and not is_wanted(row, {"author": ("Clinic",)}, {})


def test_the_number_0_is_a_source_like_others(tmp_path: Path) -> None:
    assert [name_in(value) for value in (0, 7, " a ", "", None, [])] == ["0", "7", "a", "", "", ""]
    owners = letters(tmp_path / "texts", list(range(30)), 4)
    parts = sides(new(tmp_path / "texts"), owners)
    assert sum(map(len, parts.values())) == 30


def test_prompts_of_a_source_kept_apart_only_measure(tmp_path: Path) -> None:
    letters(tmp_path / "texts", patients(10))
    rows = [{"prompt": f"Is letter {n} urgent?", "answer": "no", "source": "patient 3 "} for n in range(30)]
    (tmp_path / "texts" / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = new(tmp_path / "texts", apart="patient 3")
    (task,) = build_corpus(load_domain(str(written.path))).tasks
    assert (len(task.prompts), len(task.train)) == (30, 0)


def test_prompts_of_sources_kept_apart_by_their_beginning_only_measure() -> None:
    prompts = tuple(
        Prompt(prompt=f"Is letter {number} urgent?", answers=("no",), source=f"https://a.b/{number}")
        for number in range(30)
    )
    config = TaskConfig(name="t", file="t.jsonl")
    task = divided(config, AnswerTask(name="t", prompts=prompts), (), {"https://a.b/*"}, 0)
    assert (len(task.prompts), len(task.train)) == (30, 0)
