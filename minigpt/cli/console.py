"""Progress on stderr: live bars in a terminal, plain lines elsewhere; both with an honest ETA."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from minigpt import environment
from minigpt.progress import SILENT, Reporter
from minigpt.report.text import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")
PLAIN_SECONDS = 30.0
WARM_UP_SECONDS = 2.0


class Pace:
    """How fast one loop goes. The ETA comes from the items done so far and stays silent until there is evidence."""

    def __init__(self, total: float | None, now: float) -> None:
        self.total = total
        self.started = now
        self.done = 0

    def remaining(self, now: float) -> float | None:
        """Seconds left at the mean pace so far; None before the first items are done or without a total."""
        elapsed = now - self.started
        if not self.total or self.done == 0 or elapsed < WARM_UP_SECONDS:
            return None
        return max(self.total - self.done, 0.0) * elapsed / self.done

    def count(self) -> str:
        """Items done, and of how many where that is known."""
        return f"{self.done:,}/{self.total:,.0f}" if self.total else f"{self.done:,} done"

    def line(self, title: str, now: float) -> str:
        """One line of plain progress."""
        left = self.remaining(now)
        eta = f", about {duration(left)} left" if left is not None else ""
        return f"{title}: {self.count()} after {duration(now - self.started)}{eta}"


def size_of(items: Iterable[Any], total: float | None) -> float | None:
    """The number of items, where it can be known."""
    if total is not None:
        return total
    return len(items) if isinstance(items, Sized) else None


class PlainReporter:
    """For logs and pipes: a line when a stage starts and ends, and one about every 30 seconds in between."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def note(self, message: str) -> None:
        """One line."""
        try:
            click.echo(message, file=self.stream)
        except (OSError, ValueError):
            return

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Announce the stage, and how long it took."""
        started = time.monotonic()
        self.note(f"{title} ...")
        try:
            yield
        except BaseException:
            self.note(f"{title}: stopped after {duration(time.monotonic() - started)}")
            raise
        self.note(f"{title}: done in {duration(time.monotonic() - started)}")

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        """Yield the items; tell where the loop is about every 30 seconds."""
        last = time.monotonic()
        pace = Pace(size_of(items, total), last)
        for item in items:
            yield item
            pace.done += 1
            now = time.monotonic()
            if now - last >= PLAIN_SECONDS:
                self.note(pace.line(title, now))
                last = now


class RichReporter:
    """For a terminal: finished stages stay as lines, what runs now is drawn below them.

    The display runs only while something is tracked, so that it never disturbs what a command writes to stdout.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.depth = 0

    @contextmanager
    def drawn(self, title: str, total: float | None) -> Iterator[TaskID]:
        """A line of the display, indented under the lines already open."""
        if self.depth == 0:
            self.progress.start()
        task = self.progress.add_task(f"{'  ' * self.depth}{title}", total=total, count="", eta="")
        self.depth += 1
        try:
            yield task
        finally:
            self.depth -= 1
            self.progress.remove_task(task)
            if self.depth == 0:
                self.progress.stop()

    def note(self, message: str) -> None:
        """One dim line above the bars."""
        self.progress.console.print(message, style="dim", markup=False, highlight=False)

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """A spinner while the stage runs, then a line that says how long it took."""
        from rich.text import Text

        started = time.monotonic()
        mark, style = "✗", "red"
        try:
            with self.drawn(title, None):
                yield
            mark, style = "✓", "green"
        finally:
            took = duration(time.monotonic() - started)
            line = Text.assemble("  " * self.depth, (mark, style), f" {title} ", (took, "dim"))
            self.progress.console.print(line)

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        """Yield the items under a bar that goes away at the end."""
        pace = Pace(size_of(items, total), time.monotonic())
        with self.drawn(title, pace.total) as task:
            for item in items:
                yield item
                pace.done += 1
                left = pace.remaining(time.monotonic())
                eta = "" if left is None else f"about {duration(left)} left"
                self.progress.update(task, completed=pace.done, count=pace.count(), eta=eta)


def reporter_for(*, quiet: bool) -> Reporter:
    """The reporter for this run: silent with `-q`, bars in a terminal, plain lines elsewhere."""
    if quiet:
        return SILENT
    return RichReporter(bars()) if sys.stderr.isatty() else PlainReporter(sys.stderr)


def bars() -> Progress:
    """The rich display behind :class:`RichReporter`; it clears itself when done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}", style="dim"),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )


def silence_libraries() -> None:
    """Keep other libraries' bars, logs and warnings off stderr: ours is the only progress."""
    environment.silence_libraries()
    environment.share_cores()
    warnings.filterwarnings("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
