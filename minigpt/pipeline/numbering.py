"""Numbers, time and disk of a build's stages: a reporter that counts them, and what the rest of a build needs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from minigpt import assets
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.evaluation import Suite
from minigpt.files import read_json, write_json
from minigpt.pipeline.outlook import Sizes, checkpoint_bytes, sizes_of
from minigpt.pipeline.run import Run
from minigpt.pipeline.stages import Row, names_of, rows_of, works_of
from minigpt.pipeline.workspace import finished
from minigpt.planning.memory import in_words
from minigpt.progress.pieces import Pieces
from minigpt.progress.stages import Numbered, Prediction, Stage

# File of what was predicted for each stage and what came, in the folder of stages.
RECORD = "stages.json"


def numbered(run: Run, rows: Sequence[Row], pieces: Pieces | None = None) -> Run:
    """Return the run with a reporter that counts its stages, and that keeps what it predicted beside them.

    Args:
        run: the build.
        rows: the rows of the table that it goes through.
        pieces: the pieces of which it is one; their speeds are its own, and those ahead count as time left.
    """
    inner = run.reporter.inner if isinstance(run.reporter, Numbered) else run.reporter
    stages = [Stage(name=name, title=row.title) for row in rows for name in names_of(row, run)]
    path = run.workspace.work / RECORD
    earlier = _earlier(path)

    def keep(predictions: Sequence[Prediction]) -> None:
        again = {one.name for one in predictions}
        write_json(path, [*(one for one in earlier if one.name not in again), *predictions])

    rates, beyond = (None, None) if pieces is None else (pieces.rates, pieces.left)
    reporter = Numbered(inner, stages, keep=keep, rates=rates, beyond=beyond)
    shared = None if run.shared is None else replace(run.shared, reporter=reporter)
    workspace = replace(run.workspace, reporter=reporter)
    return replace(run, reporter=reporter, workspace=workspace, shared=shared)


def _earlier(path: Path) -> tuple[Prediction, ...]:
    """Read the records of an earlier part of the build; none where there are none."""
    try:
        return read_json(path, tuple[Prediction, ...])
    except MiniGPTError:
        return ()


def weigh(run: Run, rows: Sequence[Row], sizes: Sizes) -> None:
    """Tell the reporter the work of each stage, so that it can predict the time left."""
    if isinstance(run.reporter, Numbered) and sizes.parent:
        run.reporter.weigh(works_of(run, rows, sizes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Needs of a build from where it stands.

    Attributes:
        seconds: time that its stages still take; None without evidence for one of them.
        disk: bytes that it still writes in its folder, about.
        free: bytes that are free there.
    """

    seconds: float | None
    disk: int
    free: int


def needs_of(run: Run, sizes: Sizes) -> Needs:
    """Predict the time and the disk that a build still needs; stages that are finished need nothing.

    Args:
        run: the build.
        sizes: of :func:`minigpt.pipeline.outlook.sizes_of`.
    """
    ahead = [(name, row) for row in rows_of(run) for name in names_of(row, run) if not _is_there(run, name)]
    works = [work for _, row in ahead if (work := row.work(sizes)) is not None]
    seconds = run.reporter.rates.total(works) if isinstance(run.reporter, Numbered) and works else None
    disk = sum(row.disk(sizes) for _, row in ahead)
    if any(work.kind == "train" for work in works):
        disk += checkpoint_bytes(sizes.student_parameters)
    return Needs(seconds=seconds, disk=disk, free=free_bytes(run.workspace.root))


def _is_there(run: Run, name: str) -> bool:
    """Return whether a stage was finished before."""
    return finished(run.common.work / name) is not None or finished(run.workspace.work / name) is not None


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free on the disk of a folder, which need not exist yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def check_disk(run: Run, sizes: Sizes) -> None:
    """Refuse a build that the disk has no room for, before its first long stage.

    Raises:
        ConfigError: it has none.
    """
    needs = needs_of(run, sizes)
    if needs.disk > needs.free:
        raise ConfigError(
            f"The build needs about {in_words(needs.disk)} in {run.workspace.root}, where {in_words(needs.free)} are "
            "free. Free space, choose another --output-dir, or ask for a smaller size."
        )


def set_out(run: Run, parent: assets.Parent, suite: Suite) -> None:
    """Weigh the stages of a build, and refuse it where the disk has no room for it.

    Args:
        run: the build.
        parent: the untuned parent.
        suite: the texts and questions that are measured.

    Raises:
        ConfigError: the disk has no room.
    """
    sizes = sizes_of(run, parent, suite)
    check_disk(run, sizes)
    weigh(run, rows_of(run), sizes)
