"""Cost of the steps of a build: each counts once, also where it was finished before, and holds what ran inside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt.files import write_text
from minigpt.pipeline import workspace as module
from minigpt.pipeline.workspace import Workspace, finished


def test_steps_count_once_and_hold_what_ran_inside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([{"gpu": 10.0}, {"gpu": 11.0}, {"gpu": 12.0}, {"gpu": 15.0}])
    monkeypatch.setattr(module, "energy", lambda _device: next(readings))
    space = Workspace(root=tmp_path, device="cuda")

    def outer(folder: Path) -> None:
        space.stage("inner", "a", lambda inside: write_text(inside / "x", "x"))
        write_text(folder / "y", "y")

    for _ in range(2):
        space.stage("outer", "b", outer)
    assert list(space.steps) == ["outer"]
    assert space.steps["outer"].joules == {"gpu": 5.0}
    done = finished(tmp_path / "work" / "inner")
    assert done is not None and done.joules == {"gpu": 1.0}
    assert 0 < done.seconds <= space.steps["outer"].seconds


def test_a_later_process_knows_the_cost_of_finished_steps(tmp_path: Path) -> None:
    for _ in range(2):
        space = Workspace(root=tmp_path)
        _, done = space.stage("plan", "a", lambda folder: write_text(folder / "x", "x"))
    assert space.steps["plan"].seconds == done.seconds


def test_a_step_that_fails_has_no_cost_and_the_next_is_no_part_of_it(tmp_path: Path) -> None:
    space = Workspace(root=tmp_path)

    def broken(_folder: Path) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        space.stage("plan", "a", broken)
    assert not space.steps
    space.stage("pruned", "a", lambda folder: write_text(folder / "x", "x"))
    assert list(space.steps) == ["pruned"]
