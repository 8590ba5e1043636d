"""A crew of workers: what it is given, how far it is, and the loop that watches it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from minigpt.errors import MiniGPTError
from minigpt.files import read_json, write_json
from minigpt.lazy import resolve
from minigpt.progress import Reporter
from minigpt.progress.pieces import Planned
from minigpt.progress.rates import words_of_left
from minigpt.workers.outlook import Outlook
from minigpt.workers.request import STARTERS, Workers

# The "module:function" of each kind of work: it takes the file of the options, the folder of markers and a reporter.
WORK = {"build": "minigpt.pipeline.crew:work", "sweep": "minigpt.sweep.crew:work"}
# Folder of the workers' files inside of the folder that they share.
FOLDER = "workers"
TASK, OPTIONS, DONE = "task.json", "options.json", "done"
# Seconds between two looks at the workers, and between two lines about what all of them do.
LOOK = 0.5
TELL = 10.0
# Seconds after which what a worker said last is no longer shown.
STALE = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The task of every worker of a crew.

    Attributes:
        work: a name of :data:`WORK`.
        options: file with the options of the work.
        here: folder in which the command was given, for relative paths.
    """

    work: str
    options: Path
    here: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The marker of a piece of work that is done.

    Attributes:
        name: its name.
        worker: name of the worker that did it.
        seconds: time that it took; 0 where it was done before.
        own: the part of this time that says how long others like it take; None where it says nothing.
    """

    name: str
    worker: str
    seconds: float
    own: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The work of a worker at the moment."""

    words: str
    time: float


class Crew(Protocol):
    """Workers that were started."""

    def alive(self) -> int:
        """Return how many of them still run."""

    def stop(self) -> None:
        """End all of them."""

    def complaint(self) -> str | None:
        """Return the last words of one that failed, if there are any."""


class Starter(Protocol):
    """Function that starts workers: command of each by its number, how many, their folder, further options."""

    def __call__(
        self, command: Callable[[int], list[str]], count: int | None, folder: Path, options: Mapping[str, str]
    ) -> Crew:
        """Start the workers."""


def command_of(folder: Path) -> Callable[[int], list[str]]:
    """Return the command line of each worker, by its number.

    Args:
        folder: folder of the workers' files, which holds the task.
    """
    return lambda number: [sys.executable, "-m", "minigpt.workers", str(folder / TASK), str(number)]


def together(
    work: str, options: Any, workers: Workers, root: Path, pieces: Sequence[Planned], reporter: Reporter
) -> Path:
    """Start workers and watch them until the work is done or none is left.

    Whatever they leave undone is left to the caller, who does it alone and meets the error that ended them.

    Args:
        work: a name of :data:`WORK`.
        options: options of the work, a dataclass.
        workers: how many, and who starts them.
        root: folder that all of them see.
        pieces: all pieces, in the order in which they are taken.
        reporter: told about each piece, and about what the workers do.

    Returns:
        The folder of the markers of finished pieces.

    Raises:
        ConfigError: the starter's package is missing, or there are not as many cards.
    """
    from pydantic import TypeAdapter

    folder = root.resolve() / FOLDER
    for old in (*folder.glob("*.json"), *(folder / DONE).glob("*.json")):
        old.unlink()
    (folder / DONE).mkdir(parents=True, exist_ok=True)
    write_json(folder / OPTIONS, TypeAdapter(type(options)).dump_python(options, mode="json"))
    task = {"work": work, "options": str(folder / OPTIONS), "here": str(Path.cwd())}
    write_json(folder / TASK, task)
    starter: Starter = resolve(STARTERS[workers.kind])
    crew = starter(command_of(folder), workers.count, folder, workers.options)
    try:
        _watch(crew, folder, pieces, reporter)
    finally:
        crew.stop()
    return folder / DONE


def _watch(crew: Crew, folder: Path, pieces: Sequence[Planned], reporter: Reporter) -> None:
    """Tell of every piece that is done, and of what all workers do, until all workers have ended."""
    known: set[str] = set()
    outlook, total = Outlook(pieces, began=time.time()), len(pieces)
    left = iter(reporter.track(range(total + 1), title="Work of all workers", total=total))
    next(left, None)
    spoken, count = time.monotonic(), crew.alive()
    while True:
        running = crew.alive()
        for path in _new_markers(folder / DONE, known):
            next(left, None)
            _tell_of(path, f"{len(known)} of {total}", outlook, running, reporter)
        if not running:
            break
        if running < count and len(known) < total:
            count = running
            reporter.note(f"A worker ended{_because(crew)}; {count} go on with its work.")
        if time.monotonic() - spoken >= TELL and (words := statuses(folder)):
            spoken = time.monotonic()
            reporter.detail("  |  ".join(words))
        time.sleep(LOOK)
    if len(known) < total:
        reporter.note(f"No worker is left{_because(crew)}; this process goes on alone.")


def _new_markers(folder: Path, known: set[str]) -> Iterator[Path]:
    """Yield the markers that are not known yet, the oldest first, and make them known."""
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime):
        if path.name not in known:
            known.add(path.name)
            yield path


def _tell_of(path: Path, count: str, outlook: Outlook, running: int, reporter: Reporter) -> None:
    """Tell of a finished piece, and of the time that is left in all."""
    try:
        piece = read_json(path, Piece)
    except MiniGPTError:
        return
    outlook.learn(piece.name, piece.worker, piece.own, at=path.stat().st_mtime)
    how = f" by worker {piece.worker} in {piece.seconds:.0f} s" if piece.seconds else ""
    words = words_of_left(outlook.left(running, now=time.time()))
    reporter.note(f"{piece.name} is done{how} ({count}).{f' {words}.' if words else ''}")


def _because(crew: Crew) -> str:
    """Return what an ended worker complained of, as a part of a sentence."""
    complaint = crew.complaint()
    return f" ({complaint})" if complaint else ""


def statuses(folder: Path) -> list[str]:
    """Return what each worker does, by their numbers."""
    lines = []
    for path in sorted(folder.glob("worker-*.json")):
        try:
            status = read_json(path, Status)
        except MiniGPTError:
            continue
        if time.time() - status.time < STALE:
            lines.append(f"{path.stem.partition('-')[2]}: {status.words}")
    return lines
