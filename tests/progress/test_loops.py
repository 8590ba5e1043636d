"""Loops as stages: their numbers, and the time left by a clock that the test turns."""

from __future__ import annotations

import io
import re

from minigpt.cli.console import PlainReporter
from minigpt.progress.loops import Looped
from minigpt.progress.pieces import Planned
from minigpt.progress.rates import Work
from tests.progress.test_stages import Clock


def loop(title: str, kind: str, size: float) -> Planned:
    return Planned(name=title, kinds=(kind,), works=(Work(kind="evaluate", operations=size),))


def test_loops_have_numbers_and_predict_those_of_their_kind() -> None:
    clock, stream = Clock(), io.StringIO()
    loops = [loop("Reading a", "read", 100.0), loop("Reading b", "read", 300.0), loop("Answering", "answer", 5.0)]
    reporter = Looped(PlainReporter(stream), loops, clock=clock)
    seen = []
    for title in ("Fetching", "Reading a", "Reading b", "Answering"):
        for item in reporter.track("xy", title=title, total=2):
            seen.append(item)
            clock.now += 20
        if title == "Reading a":
            assert reporter.pieces.left() is None, "reading says nothing about answering"
    assert seen == list("xyxyxyxy")
    lines = [line for line in stream.getvalue().splitlines() if line.endswith("...")]
    assert lines == ["Stage 1 of 3: Reading a ...", "Stage 2 of 3: Reading b ...", "Stage 3 of 3: Answering ..."]


def test_the_time_left_is_that_of_all_loops_ahead() -> None:
    clock, stream = Clock(), io.StringIO()
    loops = [loop(f"Reading {name}", "read", 100.0 * size) for size, name in enumerate("abc", 1)]
    reporter = Looped(PlainReporter(stream), loops, clock=clock)
    for _ in reporter.track(range(4), title="Reading a", total=4):
        clock.now += 10
    assert re.findall("About .* left in all", stream.getvalue()) == ["About 3 min left in all"]  # 80 s and 120 s
    list(reporter.track(range(4), title="Reading c", total=4))
    assert "Stage 2 of 2: Reading c" in stream.getvalue(), "a loop that never came no longer counts"
    assert reporter.pieces.left() == 0.0
