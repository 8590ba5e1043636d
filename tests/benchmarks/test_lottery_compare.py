"""The tables of tickets: which tuned parent and which ticket an arm is paired with, and equal steps of builds."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.scripts import script

PLAN = {"pattern": "global", "start": "parent", "rewinding": "rate", "rewind": 0, "seed": 0}


@pytest.fixture(scope="module")
def compare() -> Iterator[Any]:
    with script("lottery_compare") as module:
        yield module


def line(arm: str, bits: float, pattern: str = "global") -> dict[str, Any]:
    items = {
        "keys": ["a", "b"],
        "bits": [8 * bits, 16 * bits],
        "bytes": [8, 16],
        "words": [1, 2],
        "tokens": [2, 4],
    }
    common = {"domain": "words", "base": "base", "limit": None, "tune": {}, "heal": {}}
    facts = {"remaining": 0.3, "steps": 9, "stored": {"file": 1, "dense": 2}, "seconds": 1.0}
    own = {"plan": {**PLAN, "pattern": pattern}, **facts} if arm not in ("parent", "tuned") else {}
    return {**common, **own, "arm": arm, "texts": {"heldout": {"bits_per_byte": bits, **items}}}


def test_an_arm_belongs_to_the_tuned_parent_before_it(compare: Any) -> None:
    lines = [line("tuned", 0.5), line("imp", 1.0), line("tuned", 2.0), line("imp", 1.0, "layer")]
    first, second = compare.compared(lines)
    assert first["to_tuned"]["heldout"]["value"] == pytest.approx(2.0)
    assert second["to_tuned"]["heldout"]["value"] == pytest.approx(0.5)


def test_tickets_are_paired_with_the_ticket_of_another_pattern(compare: Any) -> None:
    lines = [line("tuned", 0.5), line("imp", 1.0), line("imp", 1.1, "layer"), line("sparsegpt", 0.9)]
    values = [row["to_ticket"]["heldout"]["value"] for row in compare.compared(lines, "global")]
    assert values == pytest.approx([1.0, 1.1, 0.9])
    own = [row["to_ticket"]["heldout"]["value"] for row in compare.compared(lines)]
    assert own == pytest.approx([1.0, 1.0, 0.9])
    cells = compare.table(list(compare.compared(lines, "global"))).splitlines()
    assert "| - | 50.0%" in cells[2] and "1.1000" in cells[3]


def test_a_row_says_that_its_arm_began_from_the_tuned_parent(compare: Any) -> None:
    tuned = line("sparsegpt", 0.9)
    tuned["plan"]["start"] = "tuned"
    cells = compare.table(list(compare.compared([line("tuned", 0.5), line("sparsegpt", 1.0), tuned]))).splitlines()
    assert "| words, global, 30% |" in cells[2] and "| words, global, 30%, from tuned |" in cells[3]


def options(budget: str, *sets: str) -> Namespace:
    return Namespace(budget=budget, preset="standard", set=list(sets))


def test_a_total_budget_heals_longer_what_has_no_rounds(compare: Any) -> None:
    assert compare.overrides("contextual", "", options("healing")) == {}
    # 1,200 steps of healing, and five trainings of a quarter of them.
    assert compare.overrides("contextual", "", options("total")) == {"heal.steps": "2700"}
    sets = ("heal.steps=100", "lottery.steps=10", "lottery.rounds=3", "lottery.rewind=5")
    assert compare.overrides("magnitude", "", options("total", *sets))["heal.steps"] == "145"
    ticket = compare.overrides("lottery", "contextual", options("total"))
    assert ticket == {"lottery.criterion": "contextual"}


def test_steps_of_a_build_are_those_of_rounds_and_healing(compare: Any) -> None:
    report = {"rounds": [{"steps": 300}] * 5, "stages": [{"training": None}, {"training": {"steps": 1200}}]}
    assert compare.steps_of(report) == {"ranking": 1500, "healing": 1200, "total": 2700}
