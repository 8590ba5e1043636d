"""A sweep by two workers is the sweep of one process, also where a worker is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minigpt.files import read_jsonl
from minigpt.progress import SILENT
from minigpt.sweep import crew, sweep
from minigpt.workers import Workers
from tests.support.worlds import World, make_world
from tests.sweep.test_run import options


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "world")


def lines(root: Path) -> list[dict[str, Any]]:
    """Lines of the table without what differs from run to run."""
    changing = ("seconds", "digest")
    rows = [{key: line[key] for key in line if key not in changing} for line in read_jsonl(root / "points.jsonl")]
    return sorted(rows, key=lambda line: line["id"])


def test_what_workers_leave_undone_is_done_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The starter's workers end at once; the sweep is whole all the same, and a worker's own pass finds it done."""
    from minigpt.workers import local

    started: list[int] = []
    monkeypatch.setattr(local, "start", lambda command, count, folder, extra: Gone(started, count))
    alone = sweep(options(world, "alone"))
    shared = sweep(options(world, "shared"), workers=Workers(count=2))
    assert started == [2]
    assert lines(world.root / "alone") == lines(world.root / "shared")
    assert [domain.cells for domain in shared.domains] == [domain.cells for domain in alone.domains]
    folder = world.root / "shared" / "workers"
    crew.work(folder / "options.json", folder / "done", "0", SILENT)
    names = {path.stem for path in (folder / "done").glob("*.json")}
    assert names == {"words flap-0.9-s0-none", "words random-0.9-s0-none", "results"}


class Gone:
    """A crew whose workers ended before they did anything."""

    def __init__(self, started: list[int], count: int) -> None:
        started.append(count)

    def alive(self) -> int:
        return 0

    def stop(self) -> None:
        """Nothing runs."""

    def complaint(self) -> str | None:
        return None


@pytest.mark.slow
def test_two_workers_sweep_as_one_process(world: World) -> None:
    alone = sweep(options(world, "alone", sizes=(0.9, 0.8)))
    shared = sweep(options(world, "shared", sizes=(0.9, 0.8)), workers=Workers(count=2))
    assert [domain.cells for domain in shared.domains] == [domain.cells for domain in alone.domains]
    assert lines(world.root / "alone") == lines(world.root / "shared")
    assert len(list((world.root / "shared" / "workers" / "done").glob("*.json"))) == 5
