"""Settings of lottery tickets: what is left open is filled in by the kind of ticket, and misfits are refused."""

from __future__ import annotations

import pytest

from minigpt.errors import ConfigError
from minigpt.tickets.masks import Pattern
from minigpt.tickets.settings import LotterySettings


@pytest.mark.parametrize(
    ("pattern", "score"), [("layer", "wanda"), ("2:4", "wanda"), ("global", "magnitude"), ("lamp", "magnitude")]
)
def test_single_weights_take_the_score_that_fits_their_pattern(pattern: str, score: str) -> None:
    filled = LotterySettings(rounds=4).for_weights(1200, across=Pattern(pattern).across, rounds=4)
    assert (filled.score, filled.steps, filled.last, filled.rewinding) == (score, 300, 1200, "rate")


def test_units_are_ranked_by_equal_trainings_from_rewound_weights() -> None:
    filled = LotterySettings(rounds=4).for_units(1200)
    assert (filled.steps, filled.last, filled.rewinding) == (300, 300, "weights")


def test_what_the_user_sets_stays() -> None:
    given = LotterySettings(rounds=2, steps=7, last=9, score="magnitude", rewinding="weights")
    assert given.for_weights(100, across=False, rounds=2) == given == given.for_units(100)


def test_the_steps_of_healing_are_divided_by_the_rounds_that_there_are() -> None:
    """2:4 has two rounds, whatever the setting says."""
    assert LotterySettings(rounds=8).for_weights(1200, across=False, rounds=2).steps == 600
    assert LotterySettings(rounds=1).for_weights(1200, across=False, rounds=1).steps == 0
    assert LotterySettings(rounds=4).for_weights(1200, across=False, rounds=1).steps == 1200  # 3:4


def test_misfits_are_refused() -> None:
    with pytest.raises(ConfigError, match="compares across matrices"):
        LotterySettings(score="wanda").for_weights(10, across=Pattern("lamp").across, rounds=4)
    with pytest.raises(ConfigError, match=r"lottery\.rewind=5 is a step.*Choose lottery\.rewinding=weights"):
        LotterySettings(rewind=5).for_weights(10, across=False, rounds=4)
    with pytest.raises(ConfigError, match=r"lottery\.rewind=5"):
        LotterySettings(rewind=5, rewinding="rate").for_units(10)
    assert LotterySettings(rewind=5).for_units(10).rewind == 5
    with pytest.raises(ConfigError, match=r"lottery\.score must be one of magnitude, wanda"):
        LotterySettings(score="fisher")
    with pytest.raises(ConfigError, match=r"lottery\.last"):
        LotterySettings(last=-1)
