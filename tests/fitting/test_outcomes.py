"""Sentences about a fit: how far from each limit, with which interval, and a sentence for each that is missed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minigpt.cli.fit import choices, outcome
from minigpt.fits import Outcome
from minigpt.fitting.choose import Fitted
from minigpt.fitting.constraints import parse_constraint
from minigpt.fitting.profile import Sample, Work
from minigpt.fitting.rehearse import Pace
from minigpt.fitting.run import FitResult, outcome_of, remarks, times
from minigpt.fitting.search import Point
from minigpt.results import Interval
from minigpt.types import Shape

SHAPE = Shape(layers=20, intermediate_size=800, kv_groups=2, vocab_size=9000)
BEST = Point(
    runtime="llama.cpp", precision="int4", shape=SHAPE, parameters=10**8, file=4 * 10**7, speed=206.0, ram=None,
    pruning_cost=0.1, rounding_cost=0.03,
)  # fmt: skip
SAMPLE = Sample(
    runtime="llama.cpp", precision="int4", shape=SHAPE, decode=206.0, parent_decode=100.0,
    work=Work(layers=20, matrices=1.0, head=1.0, cache=1.0, file=2.0, rows=9000),
    ratio=Interval(value=2.06, low=2.03, high=2.09),
)  # fmt: skip
TWICE = "2x parent tokens/s"
FITTED = Fitted(
    runtime="llama.cpp", best=BEST, others=(), limits={TWICE: 200.0, "150 tokens/s": 150.0}, sensitivity="a table",
    machine="a box", rehearsed=SAMPLE, rehearsals=2,
)  # fmt: skip


def interval(value: float, spread: float = 0.02) -> Interval:
    return Interval(value=value, low=value * (1 - spread), high=value * (1 + spread))


def pace(speed: float, ratio: float, spread: float = 0.02) -> Pace:
    return Pace(speed=interval(speed, spread), ratio=interval(ratio, spread), memory=None)


def held(text: str, own: Pace, parent: float = 100.0) -> Outcome:
    return outcome_of(parse_constraint(text), FITTED, 1, own, pace(parent, 1.0))


def test_a_multiple_is_held_against_the_paired_ratio_and_not_against_two_speeds():
    item = held(TWICE, pace(190.0, 2.1), parent=80.0)  # the medians of turns say 2.4, the pairs 2.1
    assert (item.limit, item.measured) == (160.0, pytest.approx(168.0))
    assert (item.low, item.high) == (pytest.approx(0.98 * 168), pytest.approx(1.02 * 168))
    assert item.deviation == pytest.approx(0.05) and item.kept and item.near
    assert item.expected == pytest.approx(206.0 * 0.8)  # at the speed that the machine has now


def test_tokens_a_second_are_held_against_own_turns():
    item = held("150 tokens/s", pace(140.0, 9.0))
    assert (item.limit, item.measured, item.low) == (150.0, 140.0, pytest.approx(137.2))
    assert not item.kept and item.near and held("150 tokens/s", pace(170.0, 1.0)).near is False


@pytest.mark.parametrize(
    ("own", "parent", "sentences"),
    [
        (pace(204.0, 2.04), 100.0, []),
        (pace(180.0, 1.8), 100.0, [f"{TWICE} is missed by 10.0%."]),
        (pace(198.0, 1.98), 100.0, [f"{TWICE} is missed by 1.0%, which the noise of the machine can explain."]),
        (pace(277.0, 2.77), 100.0, [
            f"More was removed than the limits need: the nearest of them, {TWICE}, is 38% off."
        ]),
        (
            pace(108.0, 1.8), 60.0,
            [f"{TWICE} is missed by 10.0%.", "The machine itself changed: beside the rehearsal the parent had 100.0 "
             "tokens/s, and beside the file 60.0."],
        ),
    ],
)  # fmt: skip
def test_says_in_sentences_what_was_missed(own: Pace, parent: float, sentences: list[str]):
    assert list(remarks((held(TWICE, own, parent),), FITTED, parent)) == sentences


def test_says_that_the_noise_is_too_large_to_tell():
    (sentence,) = remarks((held(TWICE, pace(204.0, 2.04, spread=0.3)),), FITTED, 100.0)
    assert "turns differ so much (143 to 265 tokens/s) that 10% cannot be told" in sentence


def test_nothing_is_said_where_nothing_was_measured():
    item = outcome_of(parse_constraint(TWICE), FITTED, 1, None, None)
    assert item.measured is None and item.near is None and remarks((item,), FITTED, None) == ()


def test_the_tables_show_the_interval_and_whether_ten_percent_are_met():
    item = held(TWICE, pace(230.0, 2.3))
    result = FitResult(
        domain="words", fitted=FITTED, folder="f", outcomes=(item,), speed=item.measured, parent_speed=100.0, ram=None,
        rounding=None, ratio=interval(2.3), remarks=remarks((item,), FITTED, 100.0),
    )  # fmt: skip
    text = drawn(outcome(result))
    assert "225.4 – 234.6" in text and "+15.0 %" in text and " no " in text and "kept" in text
    assert "2.30 times the uncut parent by paired turns (95 % interval 2.25 to 2.35)" in text
    assert "More was removed than the limits need" in text
    assert "chosen; rehearsed, 2.06x parent (2.03 to 2.09), 206.0 tokens/s" in drawn(choices(FITTED))
    missed = replace(FITTED, fits=False, rehearsals=6)
    assert "the nearest: none of 6 rehearsed models fits" in drawn(choices(missed))


def test_a_family_without_neurons_and_attention_shows_neither():
    text = drawn(choices(replace(FITTED, axes=("vocab", "layers"))))
    assert "layers tokens" in text and "neurons" not in text and "KV" not in text and " × " not in text
    assert "layers × neurons × KV" in drawn(choices(FITTED)) and "20 × 800 × 2" in drawn(choices(FITTED))


def drawn(table: Any) -> str:
    """The text of a table, on one line."""
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), width=240)
    console.print(table)
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def test_an_interval_is_multiplied_with_its_value():
    assert times(Interval(value=2.0, low=1.5, high=3.0), 10.0) == Interval(value=20.0, low=15.0, high=30.0)
