"""Training curves for other programs: TensorBoard, Trackio and Weights & Biases, through their own interfaces.

Only numbers are passed on, never text.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from minigpt.errors import ConfigError, UnknownName, first_line
from minigpt.lazy import resolve
from minigpt.progress import Reporter

T = TypeVar("T")
PROJECT = "minigpt"


class Tracker(Protocol):
    """A program that draws curves."""

    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Receive the numbers of one step of a training run."""

    def close(self) -> None:
        """Receive the end of all runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A kind of tracker: the `module:function` that opens it, and the package that it needs, which pip installs."""

    open: str
    package: str


BACKENDS = {
    "tensorboard": Backend(open="minigpt.healing.tracking:open_tensorboard", package="tensorboard"),
    "trackio": Backend(open="minigpt.healing.tracking:open_trackio", package="trackio"),
    "wandb": Backend(open="minigpt.healing.tracking:open_wandb", package="wandb"),
}


class TensorBoardTracker:
    """Curves in event files, by torch's own writer."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer: Any = SummaryWriter
        self._writer = writer(str(folder))

    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of one step (:meth:`Tracker.log`)."""
        for name, value in values.items():
            self._writer.add_scalar(f"{run}/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file (:meth:`Tracker.close`)."""
        self._writer.close()


class RunTracker:
    """Curves in a library with the calls of Weights & Biases, which Trackio has too: `log` and `finish`.

    Several trainings share one run of the library, whose own steps only rise; so the step is a number like the others.
    """

    def __init__(self, library: Any) -> None:
        self._library = library

    def log(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Pass the numbers of one step on (:meth:`Tracker.log`)."""
        self._library.log({f"{run}/step": step, **{f"{run}/{name}": value for name, value in values.items()}})

    def close(self) -> None:
        """End the run (:meth:`Tracker.close`)."""
        self._library.finish()


def open_tensorboard(name: str, folder: Path) -> Tracker:
    """Open event files in a folder of this run's own."""
    return TensorBoardTracker(folder / name)


def open_trackio(name: str, _folder: Path) -> Tracker:
    """Open a run of Trackio, which keeps it in its own cache."""
    library = importlib.import_module("trackio")
    library.init(project=PROJECT, name=name)
    return RunTracker(library)


def open_wandb(name: str, folder: Path) -> Tracker:
    """Open a run of Weights & Biases, which sends it where the user is logged in, or keeps it with `WANDB_MODE`."""
    library = importlib.import_module("wandb")
    folder.mkdir(parents=True, exist_ok=True)
    run = library.init(project=PROJECT, name=name, dir=str(folder))
    run.define_metric("*/step", hidden=True)
    return RunTracker(library)


def open_tracker(kind: str, name: str, folder: Path) -> Tracker:
    """Open a tracker.

    Args:
        kind: a row of :data:`BACKENDS`.
        name: name of the run there.
        folder: folder for the files of those that write some.

    Raises:
        UnknownName: no such kind.
        ConfigError: its package is missing, or it refuses.
    """
    if kind not in BACKENDS:
        raise UnknownName("log", kind, BACKENDS)
    backend = BACKENDS[kind]
    if importlib.util.find_spec(backend.package) is None:
        raise ConfigError(f"--log {kind} needs {backend.package}. Run pip install 'minigpt[{kind}]'.")
    try:
        tracker: Tracker = resolve(backend.open)(name, folder)
    except Exception as error:  # a login that is missing, a folder that cannot be written
        raise ConfigError(f"{kind} cannot be opened ({first_line(error)}). Mend that or leave --log out.") from error
    return tracker


class TrackingReporter:
    """Reporter that passes training curves to a tracker, and everything to another reporter.

    A tracker that fails is given up with a note; the training goes on.
    """

    def __init__(self, inner: Reporter, tracker: Tracker) -> None:
        self._inner, self._tracker = inner, tracker
        self._works = True

    def stage(self, title: str) -> AbstractContextManager[None]:
        """Open a stage (:meth:`Reporter.stage`)."""
        return self._inner.stage(title)

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        """Yield the items (:meth:`Reporter.track`)."""
        return self._inner.track(items, title=title, total=total)

    def note(self, message: str) -> None:
        """Write one line (:meth:`Reporter.note`)."""
        self._inner.note(message)

    def detail(self, message: str) -> None:
        """Show a few words (:meth:`Reporter.detail`)."""
        self._inner.detail(message)

    def measure(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Pass the numbers of one step on (:meth:`Reporter.measure`)."""
        if not self._works:
            return
        try:
            self._tracker.log(run, step, values)
        except Exception as error:
            self._works = False
            self._inner.note(f"The log was given up: {first_line(error)}.")

    def close(self) -> None:
        """Close the tracker."""
        try:
            self._tracker.close()
        except Exception as error:
            self._inner.note(f"The log was not closed: {first_line(error)}.")


@contextmanager
def tracked(reporter: Reporter, kind: str | None, name: str, folder: Path) -> Iterator[Reporter]:
    """Yield a reporter that also passes training curves on; the given one where `kind` is None.

    Args:
        reporter: receives the progress.
        kind: a row of :data:`BACKENDS`, or None.
        name: name of the run.
        folder: folder for the files of those that write some.

    Raises:
        UnknownName: no such kind.
        ConfigError: its package is missing, or it refuses.
    """
    if kind is None:
        yield reporter
        return
    both = TrackingReporter(reporter, open_tracker(kind, name, folder))
    try:
        yield both
    finally:
        both.close()
