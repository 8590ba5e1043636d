"""Faults on purpose: builds in forked processes that are disturbed, and the judgment of how they end.

A fault is a kind and a seed. The same command runs after it, undisturbed, and must end with the result of a build that
nothing disturbed, or with one sentence. The kinds are in :mod:`tests.support.strikes`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minigpt.errors import MiniGPTError
from minigpt.healing import run as training
from minigpt.models import catalog
from minigpt.pipeline import BuildOptions, finish
from minigpt.pipeline.workspace import Workspace
from tests.support.building import build, folder_of

# Operations on files that a fault may hit, as the interpreter's audit events name them.
OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.copyfile", "tempfile.mkdtemp")
# Exit codes of a forked build that ended with a sentence of ours, or with a traceback.
SENTENCE, TRACEBACK = 1, 2

Job = Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        kind: a name of `strikes.KINDS`.
        seed: decides where it strikes.
    """

    kind: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all faults start from.

    Attributes:
        options: the build.
        result: what it must end with.
        operations: how many file operations it takes.
        borders: the borders of its stages, in their order.
        whole: a copy of a folder, and of the home, of which every stage is finished but not the build.
        finished: a copy of a folder, and of the home, of the finished build.
    """

    options: BuildOptions
    result: str
    operations: int
    borders: tuple[str, ...]
    whole: Path
    finished: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """Result of a strike.

    Attributes:
        where: the place that it struck.
        first: how the disturbed build ended; 0 where there was none.
        said: its result or what it said.
        again: the same command once more (None: undisturbed).
        may_refuse: whether one sentence is a good end of the second run, too.
    """

    where: object
    first: int = 0
    said: str = ""
    again: Job | None = None
    may_refuse: bool = False


def outcome(options: BuildOptions) -> str:
    """Run the build, and put everything that counts into one hash: metrics of all stages and the weights."""
    report = build(options)
    weights = (folder_of(options) / "model" / "model.safetensors").read_bytes()
    metrics = json.dumps([[str(metric) for metric in stage.metrics] for stage in report.stages])
    return hashlib.sha256(metrics.encode() + weights).hexdigest()


@dataclass(frozen=True, slots=True)
class Child:
    """A forked process and the pipe that it answers through."""

    pid: int
    reader: int

    def end(self) -> tuple[int, str]:
        """Wait for it; return its exit code (minus the signal) and what it returned or said."""
        with os.fdopen(self.reader, "rb") as stream:
            said = stream.read().decode("utf-8", "replace")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), said


def start(job: Job) -> Child:
    """Run `job` in a forked process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        code, said = TRACEBACK, ""
        try:
            code, said = 0, job()
        except MiniGPTError as error:
            code, said = SENTENCE, str(error)
        except BaseException:
            said = traceback.format_exc()
        finally:
            _send(writer, said)
            os._exit(code)
    os.close(writer)
    return Child(pid, reader)


def _send(writer: int, said: str) -> None:
    """Write all of an answer into the pipe, which takes a part of it at a time."""
    left = said.encode("utf-8", "replace")
    while left:
        left = left[os.write(writer, left) :]


def forked(job: Job) -> tuple[int, str]:
    """Run `job` in a forked process to its end; return its exit code and what it returned or said."""
    return start(job).end()


class Hook:
    """Audit hook that counts file operations under a folder, and strikes at one of them and every later one."""

    def __init__(self, root: Path, at: int, strike: Callable[[], None], *, reads: bool = False) -> None:
        self.root, self.at, self.strike, self.count, self.reads = str(root), at, strike, 0, reads

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._counts(event, arguments) and any(self.root in str(part) for part in arguments):
            self.count += 1
            if self.count >= self.at:
                self.strike()

    def _counts(self, event: str, arguments: tuple[Any, ...]) -> bool:
        """Return True if this operation is of the kind that is struck."""
        if event == "open" and isinstance(arguments[2], int):
            return self.reads or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        return event in OPERATIONS and not self.reads


def hooked(options: BuildOptions, root: Path, at: int, strike: Callable[[], None], *, reads: bool = False) -> Job:
    """A job: the build, with a fault at a file operation under `root`; without one, it returns their number."""

    def job() -> str:
        training.CHECKPOINT_SECONDS = 0.0
        hook = Hook(root, at, strike, reads=reads)
        sys.addaudithook(hook)
        result = outcome(options)
        return result if at < sys.maxsize else str(hook.count)

    return job


@dataclass
class Borders:
    """Counter of the borders of a build's stages that strikes at one of them.

    Attributes:
        at: the border.
        strike: what happens there.
        names: the borders that were reached.
    """

    at: int = sys.maxsize
    strike: Callable[[], None] = field(default=lambda: None)
    names: list[str] = field(default_factory=list)

    def reach(self, name: str) -> None:
        """Note a border, and strike if it is the one."""
        self.names.append(name)
        if len(self.names) == self.at:
            self.strike()

    def watch(self) -> None:
        """Put borders around every stage of this process's builds, and around each step of their end."""
        stage = Workspace.stage

        def watched(workspace: Workspace, name: str, key: str, make: Callable[[Path], None]) -> Any:
            def making(folder: Path) -> None:
                make(folder)
                self.reach(f"{name} is written")

            self.reach(f"before {name}")
            result = stage(workspace, name, key, making)
            self.reach(f"after {name}")
            return result

        Workspace.stage = watched  # type: ignore[method-assign, assignment]
        places = ((Workspace, "seal"), (Workspace, "slim"), (catalog, "add"), (finish, "write_card"))
        for place, name in (*places, (finish.report, "save")):
            self._around(place, name)

    def _around(self, place: Any, name: str) -> None:
        """Put a border before and after a function."""
        original = getattr(place, name)

        def watched(*given: Any, **named: Any) -> Any:
            self.reach(f"before {name}")
            result = original(*given, **named)
            self.reach(f"after {name}")
            return result

        setattr(place, name, watched)


def bordered(options: BuildOptions, borders: Borders) -> Job:
    """A job: the build, with a fault at the border of a stage; without one, it returns their names."""

    def job() -> str:
        training.CHECKPOINT_SECONDS = 0.0
        borders.watch()
        result = outcome(options)
        return result if borders.at < sys.maxsize else "\n".join(borders.names)

    return job


def kill() -> None:
    """End this process without warning."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_once(_folder: Path) -> None:
    """Stand in for the step that is never reached."""
    kill()


def make_ground(options: BuildOptions, root: Path) -> Ground:
    """Build undisturbed, count operations and borders, and keep copies of the folder at its end and just before it."""
    os.environ["MINIGPT_HOME"] = str(root / "home")
    options = replace(options, output_dir=root / "out")
    finished, whole = root.with_name("finished"), root.with_name("whole")
    result = _undisturbed(lambda: outcome(options), root)
    shutil.copytree(root, finished)
    counted = _undisturbed(hooked(options, root, sys.maxsize, kill), root)
    borders = _undisturbed(bordered(options, Borders()), root)

    def stopped() -> str:
        training.CHECKPOINT_SECONDS = 0.0
        catalog.add = kill_at_once  # type: ignore[assignment]
        return outcome(options)

    assert _anew(root) and forked(stopped)[0] == -signal.SIGKILL
    shutil.copytree(root, whole)
    return Ground(
        options=options,
        result=result,
        operations=int(counted),
        borders=tuple(borders.splitlines()),
        whole=whole,
        finished=finished,
    )


def _anew(root: Path) -> Path:
    """Make the folder empty."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    return root


def _undisturbed(job: Job, root: Path) -> str:
    """Run a job in an empty folder, and return its result."""
    code, said = forked(job) if _anew(root) else (SENTENCE, "")
    assert code == 0, said
    return said


def listed() -> str:
    """Name the models that the catalog lists although they are unfinished or damaged; empty if there are none."""
    states = catalog.verify()
    unfinished = [entry.id for entry in catalog.list() if not (Path(entry.path) / "work" / "sums.json").exists()]
    return " ".join([*unfinished, *(name for name, files in states.items() if set(files.values()) != {"ok"})])


def judge(ground: Ground, struck: Struck) -> tuple[str, str]:
    """Run the same command again; say how it ended (same, sentence, lost, silent, traceback, listed), and in words."""
    if struck.first == 0 and struck.said not in ("", ground.result):
        return "silent", struck.said
    if struck.first == TRACEBACK:
        return "traceback", struck.said
    code, said = forked(struck.again or (lambda: outcome(ground.options)))
    if code != 0:
        sentence = code == SENTENCE and struck.may_refuse and "\n" not in said
        return ("sentence" if sentence else "traceback" if code == TRACEBACK else "lost"), said
    if said != ground.result:
        return "silent", said
    _, wrong = forked(listed)
    return ("listed", wrong) if wrong else ("same", "")
