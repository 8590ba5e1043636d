"""The benchmark of recitation: canaries are planted as often as they say, built, and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minigpt.corpus import build_corpus
from minigpt.domain.config import load_domain
from minigpt.errors import MiniGPTError
from minigpt.evaluation import RecitationItems
from minigpt.evaluation.recitation import parts_to_recite
from minigpt.files import read_jsonl
from tests.support.scripts import script
from tests.support.worlds import SMALL, World

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def recitation() -> Any:
    """The script as a module."""
    with script("recitation") as module:
        yield module


def test_canaries_stand_in_the_training_text_as_often_as_they_say(
    recitation: Any, world: World, tmp_path: Path
) -> None:
    domain = load_domain(str(world.domain))
    corpus = build_corpus(domain)
    canaries = recitation.canaries_of(corpus, [0, 1, 5], 3, seed=0)
    assert all(parts_to_recite(canary.text) for canary in canaries)
    assert len({canary.text for canary in canaries}) == 9
    path = recitation.planted_domain(domain, corpus, canaries, tmp_path, seed=0)
    planted = build_corpus(load_domain(str(path)))
    assert planted.heldout == corpus.heldout
    trained = [*planted.train, *planted.calibration]
    for canary in canaries:
        holders = [document for document in trained if canary.text in " ".join(document.text.split())]
        assert len(holders) == canary.repetitions
        assert not any(canary.text[:60] in document.text for document in (*planted.heldout, *planted.dev))
    with pytest.raises(MiniGPTError, match="cannot hold 999 copies"):
        recitation.plant(corpus.train, recitation.canaries_of(corpus, [999], 1, seed=0), seed=0)


def test_lines_count_by_repetitions(recitation: Any) -> None:
    canaries = [
        recitation.Canary(name=name, text="", repetitions=times) for name, times in (("a", 0), ("b", 4), ("c", 4))
    ]
    items = RecitationItems(keys=("c", "a", "b"), recited=(90, 10, 50), characters=(90, 100, 100))
    assert recitation.lines_of("parent", items, canaries) == [
        {"model": "parent", "repetitions": 0, "canaries": 1, "recited": 0.1, "whole": 0},
        {"model": "parent", "repetitions": 4, "canaries": 2, "recited": 140 / 190, "whole": 1},
    ]


def test_from_planting_to_counting(
    recitation: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {
        "--domain": str(world.domain),
        "--base": str(world.base),
        "--set": json.dumps({**SMALL, "evaluation.general": "false"}),
        "--repetitions": "[0, 8]",
        "--count": "2",
        "--device": "cpu",
        "--output-dir": str(tmp_path / "build"),
        "--results": str(tmp_path / "results.jsonl"),
    }
    monkeypatch.setattr("sys.argv", ["recitation.py", *(part for pair in arguments.items() for part in pair)])
    recitation.main()
    rows = list(read_jsonl(tmp_path / "results.jsonl"))
    assert [(row["model"], row["repetitions"], row["canaries"]) for row in rows] == [
        ("parent", 0, 2),
        ("parent", 8, 2),
        ("specialist", 0, 2),
        ("specialist", 8, 2),
    ]
    assert all(0 <= row["recited"] <= 1 for row in rows)
