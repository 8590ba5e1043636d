"""The pictures of tickets: which point a line becomes, and that none outside of the picture is lost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minigpt.files import write_jsonl
from tests.support.scripts import script

PLAN = {"pattern": "layer", "start": "parent", "rewinding": "rate", "rewind": 0, "seed": 0}


@pytest.fixture(scope="module")
def picture() -> Iterator[Any]:
    pytest.importorskip("matplotlib")
    with script("lottery_picture") as module:
        yield module


def shrinking_line(arm: str, bits: float, domain: str = "medical", **plan: Any) -> dict[str, Any]:
    items = {"keys": ["a", "b"], "bits": [8 * bits, 16 * bits], "bytes": [8, 16], "words": [1, 2], "tokens": [2, 4]}
    line = {"domain": domain, "base": "base", "limit": None, "tune": {}, "heal": {}, "arm": arm}
    line["texts"] = {text: {"bits_per_byte": bits, **items} for text in ("heldout", "other", "general")}
    if arm != "tuned":
        facts = {"remaining": 0.2997, "steps": 9, "stored": {"file": 1, "dense": 2}, "seconds": 1.0}
        line |= {"plan": {**PLAN, "sampled": 12, **plan}, **facts}
    return line


def delta_line(tag: str, value: float, domain: str = "dlaw") -> dict[str, Any]:
    measured = {"value": value, "tuned": {"ratio": value / 0.5, "difference": [value - 0.5, -0.01, 0.02]}}
    names = (f"{domain} bits_per_byte", f"{domain}/other bits_per_byte", "general/other bits_per_byte")
    return {"domain": domain, "tag": tag, "measured": dict.fromkeys(names, measured)}


def test_arms_with_sampled_text_stand_at_their_share(picture: Any) -> None:
    lines = [
        shrinking_line("tuned", 0.5),
        shrinking_line("imp", 0.6),
        shrinking_line("wanda", 0.55, pattern="2:4"),
        shrinking_line("imp", 0.7, sampled=0),
        shrinking_line("imp", 0.65, criterion="sparsegpt"),
        shrinking_line("sparsegpt", 0.75, start="tuned"),
        shrinking_line("tuned", 0.8, "law"),
        shrinking_line("imp", 1.0, "law"),
        shrinking_line("sparsegpt", 1.2, "law"),
    ]
    points = [(place, series, ratio["value"]) for place, series, ratio in picture.shrinking_points(lines, "other")]
    assert points == [
        (1, "imp", pytest.approx(1.2)),
        (0, "wanda", pytest.approx(1.1)),
        (1, "imp by sparsegpt", pytest.approx(1.3)),
        (1, "law", pytest.approx(1.25)),
    ]


def test_the_first_run_of_a_delta_ticket_is_drawn_with_its_interval(picture: Any) -> None:
    lines = [delta_line("ticket-0.05", 0.51), delta_line("ticket-0.05", 0.6), delta_line("ticket-0.05-int8", 0.6)]
    [(place, series, ratio)] = picture.delta_points(lines, "general")
    assert (place, series) == (1, "ticket-0.05")
    assert ratio == pytest.approx({"value": 1.02, "low": 0.98, "high": 1.04})


def test_a_point_above_the_picture_is_written_at_its_end(picture: Any) -> None:
    ratio = {"value": 1.5, "low": 1.4, "high": 1.6}
    within = {"value": 0.9, "low": 0.8, "high": 1.0}
    points = {text: [(0, "imp", ratio), (0, "wanda", within)] for text in picture.TEXTS}
    figure = picture.draw(points, picture.SHRINKING, ["30 %"], 1.3)
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ["1.50 ↑"]
        assert axis.get_ylim()[0] < 0.8


def test_both_pictures_are_written(picture: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrinking, deltas = tmp_path / "lottery.jsonl", tmp_path / "deltas.jsonl"
    write_jsonl(shrinking, [shrinking_line("tuned", 0.5), shrinking_line("imp", 0.6)])
    write_jsonl(deltas, [delta_line("random-mask", 0.51)])
    monkeypatch.setattr(sys, "argv", ["lottery_picture", str(shrinking), str(deltas), "--folder", str(tmp_path)])
    picture.main()
    assert "SparseGPT in one shot" in (tmp_path / "lottery-shrinking.svg").read_text("utf-8")
    assert "LoRA" in (tmp_path / "lottery-deltas.svg").read_text("utf-8")
    assert not list(tmp_path.glob("*.png"))
