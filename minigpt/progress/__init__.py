"""Progress of long work. Libraries report to a `Reporter` and never print; the command line draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Reporter(Protocol):
    """Receiver of progress. All methods are cheap and never raise."""

    def stage(self, title: str) -> AbstractContextManager[None]:
        """Open a stage of the build, e.g. "Evaluating the parent", for the length of a `with` block."""

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        """Yield `items` and draw a bar with the elapsed time and an estimate of the time left."""

    def note(self, message: str) -> None:
        """Write one line to the log."""

    def detail(self, message: str) -> None:
        """Show a few words about the loop that runs, e.g. "dev 0.994 -> 0.813"."""

    def measure(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Receive numbers of a training run at a step, for programs that draw curves (`--log`)."""


class Silent:
    """The default reporter, which does nothing."""

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Draw nothing."""
        yield

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        """Yield the items and draw nothing."""
        yield from items

    def note(self, message: str) -> None:
        """Drop the message."""
        return None

    def detail(self, message: str) -> None:
        """Drop the message."""
        return None

    def measure(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Drop the numbers."""
        return None


SILENT = Silent()
