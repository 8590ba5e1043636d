"""Workers that pull pieces of work: numbers, claims, starters and what is said about them."""

from __future__ import annotations

import importlib.util
import io
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minigpt import locks
from minigpt.errors import ConfigError, UnknownName
from minigpt.files import read_json, write_json
from minigpt.progress.pieces import Planned
from minigpt.workers import Workers, cluster, local, parse_workers
from minigpt.workers.crew import Piece, Status, _watch, statuses
from minigpt.workers.pieces import Job, claim_of, pull
from minigpt.workers.status import StatusReporter
from tests.support.healing import Notes


@pytest.mark.parametrize(
    ("text", "kind", "count"),
    [("4", "local", 4), ("ray", "ray", None), ("ray:8", "ray", 8), ("slurm", "slurm", None), ("slurm:2", "slurm", 2)],
)
def test_workers_are_read(text: str, kind: str, count: int | None) -> None:
    assert parse_workers(text) == Workers(kind=kind, count=count)


@pytest.mark.parametrize("text", ["0", "-1", "ray:0", "slurm:many"])
def test_a_number_of_workers_is_one_or_more(text: str) -> None:
    with pytest.raises(ConfigError, match="is no number of workers"):
        parse_workers(text)


def test_an_unknown_starter_is_named() -> None:
    with pytest.raises(UnknownName, match="slurm"):
        parse_workers("slurn:4")


@pytest.mark.parametrize(("starter", "extra"), [(cluster.start_ray, "ray"), (cluster.start_slurm, "slurm")])
def test_a_missing_extra_is_named_with_its_pip_line(
    starter: Callable[..., object], extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=rf"pip install 'minigpt\[{extra}\]'"):
        starter(lambda number: ["true"], 1, tmp_path, {})


def jobs_that_note(folder: Path, names: str, log: list[str]) -> list[Job]:
    return [Job(name=name, lock=claim_of(folder, name), run=lambda name=name: log.append(name)) for name in names]


def test_a_worker_does_every_piece_once(tmp_path: Path) -> None:
    done, log = tmp_path / "done", []
    pull(jobs_that_note(done, "abc", log), done, "7")
    pull(jobs_that_note(done, "abc", log), done, "8")
    assert log == ["a", "b", "c"]
    assert {read_json(path, Piece).worker for path in done.glob("*.json")} == {"7"}


def test_a_piece_of_a_worker_that_died_is_done_by_another(tmp_path: Path) -> None:
    done, log = tmp_path / "done", []
    claimed, dies = threading.Event(), threading.Event()

    def hold_until_death() -> None:
        with locks.hold(claim_of(done, "a"), "a"):
            claimed.set()
            dies.wait(10)  # it ends without a marker

    other = threading.Thread(target=hold_until_death)
    other.start()
    claimed.wait(10)
    puller = threading.Thread(target=pull, args=(jobs_that_note(done, "ab", log), done, "1"))
    puller.start()
    until = time.monotonic() + 10
    while log != ["b"] and time.monotonic() < until:
        time.sleep(0.01)
    assert log == ["b"], "the claimed piece is left alone, and the next one is done"
    dies.set()
    puller.join(10)
    other.join(10)
    assert log == ["b", "a"]


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    order: list[str] = []
    taken = threading.Event()

    def first() -> None:
        with locks.wait_for(tmp_path / "stage.lock", "The stage"):
            taken.set()
            time.sleep(0.2)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    taken.wait(10)
    with locks.wait_for(tmp_path / "stage.lock", "The stage"):
        order.append("second")
    thread.join(10)
    assert order == ["first", "second"]


def writes(path: Path, text: str) -> list[str]:
    return [sys.executable, "-c", f"import os; open({str(path)!r}, 'w').write({text!r} + os.environ.get('RANK', '-'))"]


def finish(crew: local.LocalCrew | cluster.ClusterCrew) -> None:
    until = time.monotonic() + 60
    while crew.alive() and time.monotonic() < until:
        time.sleep(0.05)
    assert not crew.alive()


def test_local_workers_run_without_the_places_of_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "visible_cards", list)
    monkeypatch.setenv("RANK", "3")
    crew = local.start(lambda number: writes(tmp_path / f"{number}", str(number)), 2, tmp_path, {})
    finish(crew)
    assert [(tmp_path / name).read_text() for name in "01"] == ["0-", "1-"]
    assert crew.complaint() is None


def test_a_worker_has_one_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "visible_cards", lambda: ["4", "6"])
    code = "import os, sys; open(sys.argv[1], 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    crew = local.start(lambda number: [sys.executable, "-c", code, str(tmp_path / f"card{number}")], None, tmp_path, {})
    finish(crew)
    assert [(tmp_path / f"card{number}").read_text() for number in range(2)] == ["4", "6"]
    with pytest.raises(ConfigError, match="3 workers need a card each, and there are 2"):
        local.start(lambda number: ["true"], 3, tmp_path, {})


def test_the_last_words_of_a_failed_worker_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "visible_cards", list)
    code = "import sys; print('Error: no disk.', file=sys.stderr); sys.exit(1)"
    crew = local.start(lambda number: [sys.executable, "-c", code], 1, tmp_path, {})
    finish(crew)
    assert crew.complaint() == "no disk"


def test_slurm_runs_the_same_command_lines(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    options = {"cluster": "local", "timeout_min": "1"}
    crew = cluster.start_slurm(lambda number: writes(tmp_path / f"s{number}", str(number)), 2, tmp_path, options)
    finish(crew)
    assert [(tmp_path / f"s{number}").read_text()[0] for number in range(2)] == ["0", "1"]
    assert crew.complaint() is None
    with pytest.raises(ConfigError, match="Slurm's options are refused"):
        cluster.start_slurm(lambda number: ["true"], 1, tmp_path, {"cluster": "local", "no_such_thing": "1"})


class Two:
    """A crew of two, of which one ends at once and the other after a moment."""

    def __init__(self, folder: Path) -> None:
        self.looks, self.folder = 0, folder

    def alive(self) -> int:
        self.looks += 1
        if self.looks == 3:
            write_json(self.folder / "done" / "a.json", Piece(name="a", worker="0", seconds=3.0))
        return max(0, 2 - self.looks // 2)

    def stop(self) -> None:
        """Nothing runs."""

    def complaint(self) -> str | None:
        return "killed"


def test_progress_tells_of_pieces_and_of_workers_that_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minigpt.workers import crew

    monkeypatch.setattr(crew, "LOOK", 0.0)
    (tmp_path / "done").mkdir()
    notes = Notes()
    _watch(Two(tmp_path), tmp_path, [Planned(name="a", kinds=("point",)), Planned(name="b")], notes)
    assert notes.notes[0] == "A worker ended (killed); 1 go on with its work."
    assert "a is done by worker 0 in 3 s (1 of 2)." in notes.notes
    assert notes.notes[-1] == "No worker is left (killed); this process goes on alone."


def test_what_workers_do_is_read_from_their_files(tmp_path: Path) -> None:
    reporter = StatusReporter(tmp_path / "worker-3.json", io.StringIO())
    with reporter.stage("Point"), reporter.stage("Healing"):
        assert list(reporter.track([1, 2], title="Steps")) == [1, 2]
        assert statuses(tmp_path) == ["3: Point, Healing"]
    write_json(tmp_path / "worker-4.json", Status(words="long ago", time=0.0))
    assert statuses(tmp_path) == ["3: Point, Healing"]
