"""The benchmarks of lottery tickets: arms of a real parent in a small world, and the classic curves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.files import read_jsonl
from tests.support.scripts import script
from tests.support.worlds import World

HEAL = {"tokens_per_step": "256", "window": "64", "warmup": "1", "evaluate_every": "3"}
TUNE = {"steps": "4", "tokens_per_step": "256", "window": "64", "evaluate_every": "2"}


@pytest.fixture(scope="module")
def lottery() -> Any:
    with script("lottery") as module:
        yield module


def run(module: Any, world: World, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> list[Any]:
    arguments = [
        "lottery.py", "--data", str(world.root), "--domain", "words", "--base", str(world.base), "--json",
        str(folder / "lines.jsonl"), "--work", str(folder / "work"), "--steps", "3", "--rounds", "2", "--heal",
        json.dumps(HEAL), "--tune", json.dumps(TUNE), "--tokens", "1024", "--device", "cpu", *options,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    module.main()
    return read_jsonl(folder / "lines.jsonl")


def test_arms_share_densities_and_steps_and_are_not_repeated(
    lottery: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = run(lottery, world, tmp_path, monkeypatch, "--arms", "imp,random,reinit,own,magnitude,sparsegpt")
    assert [row["arm"] for row in rows][2:] == ["imp", "random", "reinit", "own", "magnitude", "sparsegpt"]
    arms = {row["arm"]: row for row in rows}
    for name in ("imp", "random", "reinit", "own", "magnitude", "sparsegpt"):
        assert arms[name]["remaining"] == pytest.approx(0.3, abs=0.01)
        assert arms[name]["steps"] == 9  # two rounds and the first training, of three steps
        assert arms[name]["stored"]["file"] < arms[name]["stored"]["dense"]
    assert len(arms["imp"]["rounds"]) == 3
    assert lottery.ratio(arms["tuned"], arms["tuned"], "heldout") == {"value": 1.0, "low": 1.0, "high": 1.0}
    again = run(lottery, world, tmp_path, monkeypatch, "--arms", "imp,magnitude")
    assert len(again) == len(rows)


def test_levels_of_a_plan(lottery: Any) -> None:
    plan: dict[str, Any] = {"remaining": 0.25, "rounds": 2, "steps": 10, "rewind": 5, "rewinding": "weights"}
    whole = lottery.Plan(pattern="global", start="parent", seed=0, **plan)
    assert whole.levels == (0.5, 0.25) and whole.total == 35
    assert lottery.Plan(pattern="2:4", start="parent", seed=0, **plan).levels == (0.75, 0.5)


def test_a_longer_last_training_by_wanda_keeps_the_total_for_controls(
    lottery: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--arms", "imp,magnitude", "--last", "5", "--criterion", "wanda", "--pattern", "layer", "--sampled", "4")
    arms = {row["arm"]: row for row in run(lottery, world, tmp_path, monkeypatch, *options)}
    assert [entry["facts"]["steps"] for entry in arms["imp"]["rounds"]] == [3, 3, 5]
    assert arms["imp"]["steps"] == arms["magnitude"]["steps"] == 11
    assert arms["imp"]["plan"]["criterion"] == "wanda" and arms["imp"]["plan"]["last"] == 5
    assert arms["imp"]["plan"]["sampled"] == 4
    lefts = [entry["remaining"] for entry in arms["imp"]["rounds"]]
    assert lefts == pytest.approx([1, 0.3**0.5, 0.3], abs=0.02)  # of whole rows


def test_plans_without_the_younger_fields_keep_their_names(lottery: Any) -> None:
    plan: dict[str, Any] = {"remaining": 0.25, "rounds": 2, "steps": 10, "rewind": 0, "rewinding": "rate"}
    old = lottery.Plan(pattern="global", start="parent", seed=0, **plan)
    assert old.said == {**plan, "pattern": "global", "start": "parent", "seed": 0}
    assert lottery.Plan(pattern="global", start="parent", seed=0, last=30, **plan).total == 50


@pytest.fixture(scope="module")
def classic() -> Any:
    with script("lottery_classic") as module:
        yield module


def test_the_classic_curves_of_a_perceptron(classic: Any, tmp_path: Path) -> None:
    arena = classic.Digits("cpu", classic.Recipe(steps=60, batch=60, rate=1.2e-3, warmup=0, look=20))
    levels = classic.levels_from(0.8, 0.05, 0.001)
    lines = classic.tickets_of(arena, 0, levels, 0, tmp_path)
    curves = classic.summary(lines)
    assert [point["remaining"] for point in curves["winning"]] == [1.0, 0.8, 0.04, 0.002]
    whole, _, sparse, rest = (point["measure"][0] for point in curves["winning"])
    assert whole > 0.85 and whole > rest
    assert sparse > 0.5
    assert [point["remaining"] for point in curves["random"]] == [0.8, 0.04, 0.002]
    classic.draw(curves, arena.better, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_removed_weights_stay_zero_in_the_classic_training(classic: Any) -> None:
    arena = classic.Digits("cpu", classic.Recipe(steps=5, batch=60, rate=1.2e-3, warmup=0, look=5))
    start = {name: value.detach() for name, value in arena.fresh(0).named_parameters()}
    masks = {"0.weight": torch.rand(300, 64, generator=torch.Generator().manual_seed(0)) < 0.1}
    trained = classic.fit(arena, {**start, "0.weight": start["0.weight"] * masks["0.weight"]}, masks, 0)
    assert not trained.weights["0.weight"][~masks["0.weight"]].any()
    assert not torch.equal(trained.weights["0.weight"], start["0.weight"] * masks["0.weight"])
