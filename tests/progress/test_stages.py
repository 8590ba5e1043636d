"""Stages of a run, counted, and the time left in all by a clock that the test turns."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest

from minigpt.cli.console import PlainReporter
from minigpt.progress import SILENT
from minigpt.progress.rates import Work
from minigpt.progress.stages import Numbered, Prediction, Stage, is_whole, passing, skip, step

THREE = tuple(Stage(name=name, title=name.title()) for name in ("read", "heal", "measure"))


class Clock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(reporter: Numbered, name: str, title: str = "") -> list[str]:
    """Pass a stage, with a title in it or none, and return what the log got, without times."""
    assert isinstance(reporter.inner, PlainReporter)
    stream = io.StringIO()
    reporter.inner.stream = stream
    with reporter.step(name) as begins:
        if title:
            begins()
            with reporter.stage(title), reporter.stage("Inside"):
                pass
    return [line.partition(" ...")[0] for line in stream.getvalue().splitlines() if "done in" not in line]


def counted(stages: Sequence[Stage] = THREE) -> Numbered:
    """A reporter with a plain log."""
    return Numbered(PlainReporter(io.StringIO()), stages)


def test_titles_have_numbers_and_those_inside_have_none() -> None:
    reporter = counted()
    assert lines(reporter, "read", "Reading") == ["Stage 1 of 3: Reading", "Inside"]
    assert lines(reporter, "heal", "Healing") == ["Stage 2 of 3: Healing", "Inside"]


def test_a_stage_that_was_there_is_said_once() -> None:
    reporter = counted()
    assert lines(reporter, "read") == ["Stage 1 of 3: Read: there already."]
    assert lines(reporter, "read") == []


def test_a_stage_that_never_comes_no_longer_counts() -> None:
    reporter = counted()
    lines(reporter, "read", "Reading")
    assert lines(reporter, "measure", "Measuring")[0] == "Stage 2 of 2: Measuring"


def test_other_steps_and_other_reporters_count_nothing() -> None:
    reporter = counted()
    assert lines(reporter, "chat", "Probing") == ["Probing", "Inside"]
    with step(SILENT, "read") as begins:
        begins()


def test_a_stage_that_fails_is_no_record_and_leaves_the_next_one_its_number() -> None:
    reporter = counted()
    with pytest.raises(ValueError, match="no"), reporter.step("read") as begins:
        begins()
        raise ValueError("no")
    assert reporter.predictions == []
    assert lines(reporter, "heal", "Healing")[0] == "Stage 2 of 3: Healing"


def test_time_left_follows_from_the_work_and_the_first_speed() -> None:
    """An evaluation of 1,000 operations took 10 s, so 30,000 of healing take 300 s, and the last evaluation 5 s."""
    clock, stream, kept = Clock(), io.StringIO(), list[Sequence[Prediction]]()
    reporter = Numbered(PlainReporter(stream), THREE, keep=lambda rows: kept.append(tuple(rows)), clock=clock)
    reporter.weigh(
        {
            "read": Work(kind="evaluate", operations=1000.0),
            "heal": Work(kind="train", operations=30_000.0, loop="Healing", per_item=1000.0),
            "measure": Work(kind="evaluate", operations=500.0),
        }
    )
    assert reporter.left() is None
    with reporter.step("read") as begins:
        begins()
        clock.now += 10
    assert reporter.left() == pytest.approx(305.0)
    assert "About 5 min left in all." in stream.getvalue()
    with reporter.step("heal") as begins:
        begins()
        for number in reporter.track(range(30), title="Healing", total=30):
            clock.now += 40 if not number else 20
            if number == 10:
                break
    assert [one.predicted for one in kept[-1]] == [None, pytest.approx(300.0)]
    assert [one.left for one in kept[-1]] == [None, pytest.approx(305.0)]
    assert [one.seconds for one in kept[-1]] == [10.0, pytest.approx(40 + 10 * 20)]
    assert reporter.left() == pytest.approx(5.0), "evaluations have a speed of their own"


def test_within_a_stage_the_rest_of_its_steps_counts_at_their_own_speed() -> None:
    clock = Clock()
    reporter = Numbered(SILENT, THREE[1:2], clock=clock)
    reporter.weigh({"heal": Work(kind="train", operations=10_000.0, loop="Healing", per_item=1000.0)})
    with reporter.step("heal") as begins:
        begins()
        for number in reporter.track(range(10), title="Healing", total=10):
            if number == 5:
                assert reporter.left() == pytest.approx(5 * 20.0)
            clock.now += 90 if not number else 20


def test_a_stage_without_an_arithmetic_is_no_evidence_for_another_one() -> None:
    clock = Clock()
    reporter = Numbered(SILENT, THREE, clock=clock)
    reporter.weigh({name: Work(kind="sample", operations=1.0) for name in ("read", "measure")})
    with reporter.step("read") as begins:
        begins()
        clock.now += 5
    assert reporter.left() is None


def test_a_stage_that_runs_again_has_no_number_again() -> None:
    reporter = counted()
    lines(reporter, "read", "Reading")
    assert lines(reporter, "read", "Reading") == ["Reading", "Inside"]


def test_a_stage_of_which_a_part_was_there_is_no_evidence() -> None:
    clock = Clock()
    reporter = Numbered(SILENT, THREE, clock=clock)
    reporter.weigh({name: Work(kind="evaluate", operations=100.0) for name in ("read", "measure")})
    with reporter.step("read") as begins:
        begins()
        clock.now += 1
        reporter.discount("read")
    assert reporter.left() is None


def test_a_loop_that_goes_on_in_its_middle_counts_what_was_there() -> None:
    clock = Clock()
    reporter = Numbered(SILENT, THREE[1:2], clock=clock)
    reporter.weigh({"heal": Work(kind="train", operations=10_000.0, loop="Healing", per_item=1000.0)})
    with reporter.step("heal") as begins:
        begins()
        for number in reporter.track(range(6, 10), title="Healing", total=4):
            if number == 8:
                assert reporter.left() == pytest.approx(2 * 20.0)
            clock.now += 20
    assert not reporter.is_whole


def test_finished_loops_of_a_stage_predict_the_rest_with_what_lies_between_them() -> None:
    """A round of 4 steps takes 40 s and its pruning 20 s, so two of three rounds that are left take 120 s."""
    clock, stream = Clock(), io.StringIO()
    reporter = Numbered(PlainReporter(stream), THREE[1:2], clock=clock)
    reporter.weigh({"heal": Work(kind="train", operations=1200.0, loop="Round", per_item=100.0)})
    with reporter.step("heal") as begins:
        begins()
        for number in range(3):
            with reporter.stage(f"Round {number}"):
                clock.now += 20
                for _ in reporter.track(range(4), title=f"Round {number}", total=4):
                    clock.now += 10
                assert reporter.left() == pytest.approx((2 - number) * 60.0)
    said = [line for line in stream.getvalue().splitlines() if "in all" in line]
    assert said == ["About 2 min left in all.", "About 1 min left in all."]


def test_rounds_of_an_earlier_run_are_no_work_ahead() -> None:
    clock = Clock()
    reporter = Numbered(SILENT, THREE[1:2], clock=clock)
    reporter.weigh({"heal": Work(kind="train", operations=1200.0, loop="Round", per_item=100.0)})
    skip(SILENT, 0.5)
    with reporter.step("heal") as begins:
        begins()
        skip(reporter, 1 / 3)
        for _ in reporter.track(range(4), title="Round 1", total=4):
            clock.now += 10
        assert reporter.left() == pytest.approx(40.0)
    assert not is_whole(reporter)


def test_a_stage_under_a_title_has_a_number_only_where_stages_are_counted() -> None:
    stream = io.StringIO()
    for reporter in (Numbered(PlainReporter(stream), THREE), PlainReporter(stream)):
        with passing(reporter, "read", "Reading"):
            pass
    begun = [line for line in stream.getvalue().splitlines() if line.endswith("...")]
    assert begun == ["Stage 1 of 3: Reading ...", "Reading ..."]
