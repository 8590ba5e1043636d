"""Time of pieces: by hand, by brute force over all orders of events, and by a clock that the test turns."""

from __future__ import annotations

import io
from random import Random

import pytest

from minigpt.cli.console import PlainReporter
from minigpt.progress import SILENT
from minigpt.progress.pieces import Pieces, Planned, Timed, expected, in_turns, total
from minigpt.progress.rates import Rates, Work
from minigpt.progress.stages import Numbered, Stage
from tests.progress.test_stages import Clock


def point(name: str, method: str, operations: float) -> Planned:
    """A point of a method, with its work."""
    return Planned(name=name, kinds=(method, "point"), works=(Work(kind="train", operations=operations),))


def test_the_nearest_kind_predicts_in_proportion_to_the_work() -> None:
    finished = [Timed(piece=point("a", "flap", 100.0), seconds=20.0)]
    assert expected(point("b", "flap", 50.0), finished) == pytest.approx(10.0)
    assert expected(point("c", "random", 200.0), finished) == pytest.approx(40.0), "any point, for want of its method"
    finished.append(Timed(piece=point("d", "random", 100.0), seconds=7.0))
    assert expected(point("c", "random", 200.0), finished) == pytest.approx(14.0)


def test_the_first_of_a_kind_does_not_count_beside_others() -> None:
    """It paid 30 s for statistics that the other two found there."""
    times = [(100.0, 40.0), (100.0, 10.0), (50.0, 5.0)]
    finished = [Timed(piece=point(str(place), "flap", work), seconds=took) for place, (work, took) in enumerate(times)]
    assert expected(point("d", "flap", 200.0), finished) == pytest.approx(200 * 15 / 150)


def test_without_evidence_nothing_is_predicted_and_no_speed_stands_for_another() -> None:
    piece, rates = point("a", "flap", 100.0), Rates()
    assert expected(piece, []) is None
    assert total([piece], [], rates) is None
    rates.measure("evaluate", 1000.0, 1.0)
    assert expected(piece, [], rates) is None
    rates.measure("train", 10.0, 1.0)
    assert expected(piece, [], rates) == pytest.approx(10.0)
    assert total([], [], rates) == 0.0
    ground = Planned(name="law ground", kinds=("ground",))
    assert total([ground], [Timed(piece=piece, seconds=3.0)]) is None, "a point says nothing about a ground"


def simulated(seconds: list[float], busy: list[float]) -> float:
    """Time until all is done, by looking again and again which worker is free next."""
    queue = list(seconds)
    clocks = [max(0.0, queue.pop(0) - spent) for spent in sorted(busy, reverse=True) if queue]
    while queue:
        first = clocks.index(min(clocks))
        clocks[first] += queue.pop(0)
    return max(clocks, default=0.0)


def test_workers_take_the_next_piece_when_they_are_free() -> None:
    assert in_turns([10, 10, 10, 10], [0, 0]) == 20
    assert in_turns([10, 10, 10], [0, 0]) == 20, "an odd piece leaves a worker idle"
    assert in_turns([10, 10, 10], [4, 9]) == 11, "the worker that is nearly done takes the last one"
    assert in_turns([10], [3, 0, 0]) == 7
    assert in_turns([10, 4], []) == 14, "whoever is left does it alone"
    assert in_turns([], [5]) == 0
    draw = Random(0)
    for _ in range(50):
        seconds = [draw.uniform(1, 9) for _ in range(draw.randint(0, 9))]
        busy = [draw.uniform(0, 5) for _ in range(draw.randint(1, 4))]
        assert in_turns(seconds, busy) == pytest.approx(simulated(seconds, busy))


def test_a_run_says_what_is_left_after_a_piece() -> None:
    clock, stream = Clock(), io.StringIO()
    pieces, reporter = Pieces(clock=clock), PlainReporter(stream)
    pieces.plan([point(name, "flap", 100.0) for name in "abcd"])
    assert pieces.left() is None
    pieces.skip("b")
    with pieces.run("a", reporter):
        clock.now += 60
    assert pieces.left() == pytest.approx(120.0)
    assert stream.getvalue() == "About 2 min left in all.\n"
    assert pieces.seconds_of("a") == 60.0
    assert pieces.seconds_of("b") is None
    with pytest.raises(ValueError, match="cannot"), pieces.run("c", reporter):
        raise ValueError("cannot")
    assert pieces.left() == pytest.approx(60.0), "a piece that failed is neither ahead nor evidence"
    assert len(pieces.finished) == 1


def test_a_piece_of_which_a_stage_was_there_is_no_evidence() -> None:
    clock, pieces = Clock(), Pieces()
    stages = [Stage(name="plan", title="Plan"), Stage(name="heal", title="Heal")]
    for name, there in (("a", True), ("b", False)):
        reporter = Numbered(SILENT, stages, clock=clock)
        with pieces.run(name, reporter):
            for stage in stages:
                with reporter.step(stage.name) as begins:
                    if not (there and stage.name == "plan"):
                        begins()
    assert [one.piece.name for one in pieces.finished] == ["b"]


def test_a_stage_within_a_piece_counts_the_pieces_ahead() -> None:
    """10 steps of 20 s are ahead in this piece, and a piece of 100 s after it."""
    clock, pieces = Clock(), Pieces()
    pieces.plan([point("ahead", "flap", 5000.0)])
    reporter = Numbered(SILENT, [Stage(name="heal", title="")], rates=pieces.rates, beyond=pieces.left, clock=clock)
    reporter.weigh({"heal": Work(kind="train", operations=12_000.0, loop="Healing", per_item=1000.0)})
    assert reporter.left() is None
    with reporter.step("heal") as begins:
        begins()
        for number in reporter.track(range(12), title="Healing", total=12):
            if number == 2:
                assert reporter.left() == pytest.approx(10 * 20.0 + 5 * 20.0)
            clock.now += 20
