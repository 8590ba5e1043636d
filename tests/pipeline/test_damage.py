"""Builds whose kept files are damaged, whose folder is in use, or that were killed at an awkward moment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from minigpt.errors import MiniGPTError
from minigpt.locks import hold
from minigpt.models import catalog
from minigpt.pipeline import BuildOptions
from minigpt.pipeline.workspace import LOCK, State, Workspace
from minigpt.progress import Silent
from minigpt.results import BuildReport
from tests.support.building import FAST, build, folder_of
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")


class Stopping(Silent):
    """Interrupts at the stage of this title, and remembers what it was told."""

    def __init__(self, title: str = "") -> None:
        self.title = title
        self.told: list[str] = []

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        if self.title and title.endswith(self.title):  # behind its number
            raise KeyboardInterrupt
        yield

    def note(self, message: str) -> None:
        self.told.append(message)


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildOptions, BuildReport, bytes]:
    """A build that nothing disturbed: its options, report and weights."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MINIGPT_HOME", str(tmp_path_factory.mktemp("home")))
    options = world.options("whole", overrides=FAST)
    report = build(options)
    patch.undo()
    return options, report, (folder_of(options) / "model" / "model.safetensors").read_bytes()


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x04
    path.write_bytes(data)


def names(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def the_same(report: BuildReport, other: BuildReport) -> bool:
    return [stage.metrics for stage in report.stages] == [stage.metrics for stage in other.stages]


def test_a_flipped_bit_in_any_finished_stage_is_named_and_the_stage_made_again(
    whole: tuple[BuildOptions, BuildReport, bytes], tmp_path: Path
) -> None:
    options, report, weights = whole
    options = replace(options, output_dir=tmp_path / "flipped")
    with pytest.raises(KeyboardInterrupt):
        build(options, Stopping("Report, model card and catalog"))
    work = tmp_path / "flipped" / "work"
    files = {path.parent.name: path for path in sorted(work.glob("*/*")) if path.is_file() and path.suffix != ".jsonl"}
    files |= {path.parts[-3]: path for path in work.glob("*/model/model.safetensors")}
    assert {"corpus", "plan", "pruned", "healed", "measured_parent", "measured_healed"} <= files.keys()
    for path in files.values():
        flip(path)
    reporter = Stopping()
    result = build(options, reporter)
    named = [note for note in reporter.told if "was damaged" in note]
    assert len(named) >= len(files) - 2  # a marker that is no JSON any more counts as no marker
    assert the_same(result, report)
    assert (tmp_path / "flipped" / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("how", ["gone", "half", "flipped", "report", "sums"])
def test_a_finished_build_that_is_damaged_is_moved_aside_and_made_again(
    whole: tuple[BuildOptions, BuildReport, bytes], tmp_path: Path, how: str
) -> None:
    options, report, weights = whole
    root = tmp_path / "one"
    shutil.copytree(folder_of(options), root)
    model = root / "model" / "model.safetensors"
    if how == "gone":
        model.unlink()
    elif how == "half":
        model.write_bytes(weights[: len(weights) // 2])
    elif how == "flipped":
        flip(model)
    else:
        flip(root / "report.json" if how == "report" else root / "work" / "sums.json")
    options, reporter = replace(options, output_dir=root), Stopping()
    result = build(options, reporter)
    assert any("was damaged" in note for note in reporter.told)
    assert the_same(result, report) and model.read_bytes() == weights
    assert len(list(root.glob("*.damaged-*"))) == 2
    (states,) = catalog.verify().values()
    assert set(states.values()) == {"ok"}
    assert build(options, reporter) == result


def test_a_card_that_was_edited_is_no_damage(whole: tuple[BuildOptions, BuildReport, bytes], tmp_path: Path) -> None:
    options, report, _ = whole
    shutil.copytree(folder_of(options), tmp_path / "one")
    (tmp_path / "one" / "model" / "README.md").write_text("my words")
    assert build(replace(options, output_dir=tmp_path / "one")) == report
    assert (tmp_path / "one" / "model" / "README.md").read_text() == "my words"


def test_a_second_build_in_one_folder_is_told_and_changes_nothing(
    whole: tuple[BuildOptions, BuildReport, bytes], tmp_path: Path
) -> None:
    options = replace(whole[0], output_dir=tmp_path / "busy")
    with hold(tmp_path / "busy" / "work" / LOCK, "another"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(MiniGPTError, match=f"busy is in use by process {os.getpid()} on "):
            build(options)
        with pytest.raises(MiniGPTError, match="in use"):
            build(replace(options, force=True))
        assert sorted(tmp_path.rglob("*")) == before
    build(options)


KILL = """
import os, signal, sys
count = 0
def hook(event, arguments):
    global count
    if event in ("os.remove", "os.rmdir", "os.rename"):
        count += 1
        if count == {n}:
            os.kill(os.getpid(), signal.SIGKILL)
from pathlib import Path
from minigpt.pipeline.workspace import Workspace
sys.addaudithook(hook)
Workspace(root=Path({root!r})).clear()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_clearing_that_is_killed_anywhere_leaves_nothing_that_counts_as_finished(
    whole: tuple[BuildOptions, BuildReport, bytes], tmp_path: Path
) -> None:
    kills = 0
    for n in (1, 3, 8, 21):
        root = tmp_path / str(n)
        shutil.copytree(folder_of(whole[0]), root)
        process = subprocess.run([sys.executable, "-c", KILL.format(n=n, root=str(root))], check=False)
        kills += process.returncode == -signal.SIGKILL
        untouched = names(root) == names(folder_of(whole[0]))
        assert Workspace(root=root).state() is (State.WHOLE if untouched else State.RESUMABLE)
    assert kills >= 3


@pytest.mark.parametrize("left", ["work/.build.json.x1/build.json", "work/in_use.lock", "work/in_use.json"])
def test_a_folder_whose_first_file_was_being_written_is_welcome(
    whole: tuple[BuildOptions, BuildReport, bytes], tmp_path: Path, left: str
) -> None:
    root = tmp_path / "begun"
    (root / left).parent.mkdir(parents=True)
    (root / left).write_text("")
    assert Workspace(root=root).state() is State.RESUMABLE
    with Workspace(root=root).locked():
        assert not list((root / "work").glob(".build*"))
