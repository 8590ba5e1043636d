"""The benchmark of free answers: its domain files, its lines and its table."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minigpt.domain.config import load_domain, validate
from minigpt.evaluation import ItemScores
from minigpt.evaluation.answers import scored
from minigpt.files import to_plain
from minigpt.types import AnswerTask, Prompt
from tests.support.scripts import script

TASK = AnswerTask(
    name="t",
    prompts=tuple(Prompt(prompt=str(place), answers=("x",), choices=("x", "y")) for place in range(10)),
)


@pytest.fixture(scope="module")
def answers() -> Any:
    """The script as a module."""
    with script("answers") as module:
        yield module


@pytest.mark.parametrize("name", ["medical", "law", "finance"])
def test_the_domain_files_can_be_read(answers: Any, tmp_path: Path, name: str) -> None:
    for folder in (name, "general"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for file in ("corpus_train.jsonl", "corpus_heldout.jsonl"):
            (tmp_path / "data" / folder / file).write_text(json.dumps({"text": "A text.", "source": "s"}) + "\n")
    domain = load_domain(str(answers.domain_file(tmp_path / "data", name, tmp_path)))
    assert [task.rule for task in domain.tasks] == ["kind", "quote", "missing_word"]
    assert [source.split for source in domain.corpus] == ["auto", "heldout"]
    assert not validate(domain)
    assert load_domain(domain.general).tasks[0].name == "instructions"


def test_a_line_says_what_is_kept_with_paired_intervals(answers: Any) -> None:
    def items(right: int) -> ItemScores:
        return ItemScores(answers={"d/t": scored(TASK, ["x"] * right + ["z"] * (10 - right))})

    controls = SimpleNamespace(parent=items(10), tuned=items(8))
    common = {"domain": "d", "size": 0.5, "kept": 0.5}
    ground = SimpleNamespace(controls=controls)
    lines = list(answers.lines_of(ground, items(6), common))
    first = next(line for line in lines if line["metric"] == "exact_match")
    assert first["specialist"].value == pytest.approx(0.6)
    assert first["kept_of_tuned"].value == pytest.approx(0.75)
    assert first["kept_of_tuned"].low < 0.75 < first["kept_of_tuned"].high
    assert first["difference_to_parent"].value == pytest.approx(-0.4)
    assert {line["constant"] for line in lines} == {None}
    assert {line["metric"] for line in lines} == {"exact_match", "token_f1", "format_compliance"}
    rows = answers.table(to_plain(lines)).splitlines()
    assert len(rows) == 2 + len(lines)
    assert rows[2].endswith("| no |")
    nothing = list(answers.lines_of(ground, items(0), common))
    assert nothing[0]["kept_of_tuned"] is None
    assert "–" in answers.table(to_plain(nothing))


@pytest.mark.parametrize(
    ("metric", "low", "kept", "verdict"),
    [
        ("exact_match", 0.6, 1.2, "guess"),
        ("exact_match", 0.7, 1.2, "yes"),
        ("exact_match", 0.7, 0.9, "no"),
        ("exact_match", 0.7, None, "–"),
        ("format_compliance", 0.5, 0.96, "yes"),
    ],
)
def test_a_ratio_of_two_guesses_is_no_success(
    answers: Any, metric: str, low: float, kept: float | None, verdict: str
) -> None:
    ratio = None if kept is None else {"value": kept}
    names = ("kept_of_tuned", "kept_of_parent")
    line = {"metric": metric, "specialist": {"low": low}, "constant": 0.6, **dict.fromkeys(names, ratio)}
    assert answers.verdict(line) == verdict
