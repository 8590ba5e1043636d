"""Turns: ratios of a machine that changes all the time, against the known ratio; intervals against exact ones."""

from __future__ import annotations

from itertools import pairwise
from math import comb

import pytest

from minigpt.fitting import turns
from minigpt.fitting.turns import FEWEST_TURNS, enough, median_interval, paired_ratio, take_turns
from minigpt.models.bench import Workload
from tests.support.machines import Machine, TimedModel

WORK = Workload(prompt=128, decode=32, repeats=40)


def session(machine: Machine, *seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    monkeypatch.setattr(turns, "time", machine.clock())
    return take_turns([TimedModel(machine=machine, seconds=item) for item in seconds], WORK)  # type: ignore[list-item]


@pytest.mark.parametrize("seed", range(8))
def test_paired_turns_give_the_ratio_though_the_machine_swings(seed: int, monkeypatch: pytest.MonkeyPatch):
    machine = Machine(seed=seed, drift=0.3, hiccups=0.1, luck=0.1)
    parent, own = session(machine, 6e-3, 3e-3, monkeypatch=monkeypatch)
    ratio = paired_ratio(own, parent)
    assert ratio.value == pytest.approx(2.0, rel=0.05)
    assert ratio.low <= ratio.value <= ratio.high and ratio.high / ratio.low < 1.1
    machine.wait(30)
    later = session(machine, 6e-3, 3e-3, monkeypatch=monkeypatch)
    assert paired_ratio(later[1], later[0]).value == pytest.approx(ratio.value, rel=0.06)


def test_speeds_of_other_times_do_not():
    """Speeds of different times differ by tens of percent on the same machine."""
    machine, speeds = Machine(seed=3, drift=0.3), []
    for _ in range(12):
        machine.wait(20)
        speeds.append(1 / machine.slowness())
    assert max(speeds) / min(speeds) > 1.4


def test_a_session_ends_as_soon_as_the_ratios_are_known(monkeypatch: pytest.MonkeyPatch):
    quiet = session(Machine(), 6e-3, 3e-3, 2e-3, monkeypatch=monkeypatch)
    assert [len(own) for own in quiet] == [FEWEST_TURNS] * 3
    noisy = session(Machine(seed=1, drift=0.3, hiccups=0.3), 6e-3, 3e-3, monkeypatch=monkeypatch)
    assert FEWEST_TURNS < len(noisy[0]) <= WORK.repeats * WORK.decode // turns.TURN


def test_a_slow_machine_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch):
    machine = Machine(seed=1, drift=0.5, hiccups=0.5)
    slow = session(machine, 0.6, 0.3, monkeypatch=monkeypatch)
    assert len(slow[0]) >= FEWEST_TURNS // 2 and machine.now < 4 * turns.PATIENCE


def test_first_steps_of_a_turn_do_not_count(monkeypatch: pytest.MonkeyPatch):
    machine = Machine()

    class Cold(TimedModel):
        steps = 0

        def step(self, token: int) -> None:
            self.machine.wait(1.0 if self.steps % turns.TURN < turns.COLD else 0.01)
            self.steps += 1

    monkeypatch.setattr(turns, "time", machine.clock())
    model = Cold(machine=machine, seconds=0.01)
    assert turns.turn_speed(model, [1, 2, 3], turns.TURN) == pytest.approx(100)  # type: ignore[arg-type]
    assert turns.turn_speed(model, [1], 1) == pytest.approx(1.0)  # type: ignore[arg-type]  # nothing else to count


def test_the_interval_of_a_median_is_the_exact_one():
    for number in (6, 9, 16, 25, 40):
        values = list(range(1, number + 1))
        interval = median_interval([float(value) for value in reversed(values)])
        rank = int(interval.low)
        outside = [sum(comb(number, index) for index in range(k)) / 2**number for k in (rank, rank + 1)]
        assert outside[0] <= 0.025 < outside[1] and interval.high == number + 1 - rank
        assert interval.value == (number + 1) / 2
    assert median_interval([3.0]) == median_interval([3.0, 3.0])
    few = median_interval([1.0, 2.0, 5.0])
    assert (few.low, few.value, few.high) == (1.0, 2.0, 5.0)


def test_a_lone_model_is_known_by_its_own_turns():
    assert enough([[100.0, 101.0] * 10]) and not enough([[100.0, 150.0] * 10]) and not enough([[100.0] * 5])


def test_one_lucky_and_some_disturbed_turns_decide_nothing():
    speeds = [100.0] * 20 + [500.0] + [20.0] * 9
    assert median_interval(speeds).value == 100.0
    lows = [median_interval([100.0] * 20 + [20.0] * slow).value for slow in range(12)]
    assert all(one == other for one, other in pairwise(lows))
