"""Progress on stderr: bars, plain lines, time left."""

from __future__ import annotations

import io

import pytest

from minigpt.cli import console
from minigpt.errors import AssetError


def test_the_eta_is_the_mean_pace_and_silent_without_evidence() -> None:
    pace = console.Pace(100, now=0.0)
    assert pace.remaining(50.0) is None
    pace.done = 20
    assert pace.remaining(1.0) is None
    assert pace.remaining(50.0) == pytest.approx(200.0)
    pace.done = 130
    assert pace.remaining(50.0) == 0.0
    assert console.Pace(None, now=0.0).remaining(50.0) is None


def test_plain_progress_has_one_line_about_every_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 10_000, 10))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(ticks)))
    stream = io.StringIO()
    assert list(console.PlainReporter(stream).track(range(12), title="Reading")) == list(range(12))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Reading: 3/12 after 30.0 s, about 1 min 30 s left"
    assert len(lines) == 4
    assert "\x1b" not in stream.getvalue()


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
    assert "✓ Pruning [all]" in stream.getvalue()
    assert "\x1b[32m" not in stream.getvalue()
    assert not progress.live.is_started
    assert progress.tasks == []
