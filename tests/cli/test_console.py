"""Progress on stderr: bars, plain lines, time left."""

from __future__ import annotations

import io
import sys

import pytest

from minigpt.cli import console
from minigpt.cli.common import data_console
from minigpt.cli.console import reporter_for
from minigpt.cli.pace import Pace
from minigpt.cli.streams import is_terminal
from minigpt.errors import AssetError
from minigpt.progress.rates import roughly


def paced(total: float | None, *times: float) -> Pace:
    """A loop that started at 0 and whose items were done at these times."""
    pace = Pace(total, now=0.0)
    for time in times:
        pace.advance(time)
    return pace


def test_there_is_no_estimate_without_a_total_or_evidence() -> None:
    assert Pace(100, now=0.0).remaining(50.0) is None
    assert paced(100, 5.0).remaining(50.0) is None, "the first item says nothing"
    assert paced(100, 5.0, 6.0).remaining(6.5) is None
    assert paced(None, 5.0, 10.0, 15.0).remaining(15.0) is None
    assert paced(None, 5.0, 10.0).line("Reading", 10.0) == "Reading: 2 done after 10.0 s"


def test_a_slow_first_item_does_not_spoil_the_estimate() -> None:
    """40 s of compiling, then 2 s an item: 97 items are left."""
    assert paced(100, 40.0, 42.0, 44.0).remaining(44.0) == pytest.approx(97 * 2.0)
    assert paced(2, 40.0, 44.0).remaining(44.0) == 0.0


def test_the_estimate_follows_the_last_minute() -> None:
    """100 items at 1 s each, then the machine gets busy: 4 s each. A minute later only those 4 s count."""
    fast = [float(second) for second in range(1, 101)]
    slow = [100.0 + 4 * item for item in range(1, 17)]
    assert paced(216, *fast).remaining(100.0) == pytest.approx(116.0)
    assert paced(216, *fast, *slow).remaining(164.0) == pytest.approx(100 * 4.0)


def test_items_longer_than_the_memory_still_have_an_estimate() -> None:
    assert paced(10, 100.0, 300.0, 500.0).remaining(500.0) == pytest.approx(7 * 200.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "10 s"),
        (13.6, "10 s"),
        (44.0, "40 s"),
        (55.0, "1 min"),
        (89.0, "1 min"),
        (246.0, "4 min"),
        (508.0, "8 min"),
        (3570.0, "1 h"),
        (4700.0, "1 h 20 min"),
        (7100.0, "2 h"),
    ],
)
def test_estimates_are_rounded_to_what_they_can_say(seconds: float, text: str) -> None:
    assert roughly(seconds) == text


def test_plain_progress_has_one_line_about_every_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10_000, 10))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(ticks)))
    stream = io.StringIO()
    assert list(console.PlainReporter(stream).track(range(12), title="Reading")) == list(range(12))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Reading: 3/12 after 30.0 s, about 2 min left"
    assert len(lines) == 4
    assert "\x1b" not in stream.getvalue()


def test_plain_details_stand_under_the_innermost_title() -> None:
    stream = io.StringIO()
    reporter = console.PlainReporter(stream)
    for _ in reporter.track([1], title="Points"):
        for _ in reporter.track([1], title="Healing"):
            reporter.detail("dev 0.994 -> 0.813")
        reporter.detail("one done")
    reporter.detail("the end")
    assert stream.getvalue().splitlines() == ["Healing: dev 0.994 -> 0.813", "Points: one done", "the end"]


def test_a_stage_that_fails_says_so_and_lets_the_error_through() -> None:
    stream = io.StringIO()
    with pytest.raises(AssetError), console.PlainReporter(stream).stage("Fetching"):
        raise AssetError("No network.")
    assert "Fetching: stopped after" in stream.getvalue()


def test_bars_leave_only_finished_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setenv("NO_COLOR", "1")
    progress = console.bars()
    stream = io.StringIO()
    progress.live.console = Console(file=stream, force_terminal=True, width=80)
    reporter = console.RichReporter(progress)
    with reporter.stage("Pruning [all]"):
        assert list(reporter.track([1, 2], title="Layers")) == [1, 2]
        assert not progress.finished
        for _ in reporter.track([1], title="Healing"):
            reporter.detail("dev 0.994 -> 0.813")
            assert [task.fields["detail"] for task in progress.tasks] == ["", "dev 0.994 -> 0.813"]
    reporter.detail("nothing is drawn")
    assert "✓ Pruning [all]" in stream.getvalue()
    assert "\x1b[32m" not in stream.getvalue()
    assert not progress.live.is_started
    assert progress.tasks == []


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_a_closed_standard_stream_is_no_terminal(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, stream, None)
    assert not is_terminal(getattr(sys, stream))
    assert data_console().width > 0
    assert reporter_for(quiet=False) is not None
