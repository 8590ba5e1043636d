"""Progress on stderr: live bars in a terminal, plain lines elsewhere, both with an estimate of the time left."""

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
# Seconds between two lines of plain progress.
PLAIN_SECONDS = 30.0
# Seconds before the first estimate of the time left.
WARM_UP_SECONDS = 2.0


class Pace:
    """Pace of one loop, and the time left at that pace.

    Attributes:
        total: number of items, if it is known.
        started: time at which the loop started, in seconds.
        done: items done so far.
    """

    def __init__(self, total: float | None, now: float) -> None:
        self.total = total
        self.started = now
        self.done = 0

    def remaining(self, now: float) -> float | None:
        """Estimate the seconds left at the mean pace so far; None without a total or before there is evidence."""
        elapsed = now - self.started
        if not self.total or self.done == 0 or elapsed < WARM_UP_SECONDS:
            return None
        return max(self.total - self.done, 0.0) * elapsed / self.done

    def count(self) -> str:
        """Format the number of items done, and of how many where that is known."""
        return f"{self.done:,}/{self.total:,.0f}" if self.total else f"{self.done:,} done"

    def line(self, title: str, now: float) -> str:
        """Format one line of plain progress."""
        left = self.remaining(now)
        eta = f", about {duration(left)} left" if left is not None else ""
        return f"{title}: {self.count()} after {duration(now - self.started)}{eta}"


def size_of(items: Iterable[Any], total: float | None) -> float | None:
    """Return the number of items, where it can be known."""
    if total is not None:
        return total
    return len(items) if isinstance(items, Sized) else None


class PlainReporter:
    """Reporter for logs and pipes.

    It prints a line when a stage starts and ends, and one about every 30 seconds in between.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def note(self, message: str) -> None:
        """Print one line."""
        # Progress must not stop a job whose terminal is gone.
        try:
            click.echo(message, file=self.stream)
        except (OSError, ValueError):
            return

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Announce the stage, and at its end the time it took."""
        started = time.monotonic()
        self.note(f"{title} ...")
        try:
            yield
        except BaseException:
            self.note(f"{title}: stopped after {duration(time.monotonic() - started)}")
            raise
        self.note(f"{title}: done in {duration(time.monotonic() - started)}")

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        """Yield the items, and print how far the loop is about every 30 seconds."""
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
    """Reporter for a terminal: finished stages stay as lines, and running ones are drawn below them.

    The display runs only while something is tracked, so that it never disturbs what a command writes to stdout.

    Attributes:
        progress: the display.
        depth: number of lines of the display that are open.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.depth = 0

    @contextmanager
    def drawn(self, title: str, total: float | None) -> Iterator[TaskID]:
        """Open a line of the display, indented under the lines that are already open."""
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
        """Print one dim line above the bars."""
        self.progress.console.print(message, style="dim", markup=False, highlight=False)

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Show a spinner while the stage runs, then print a line with the time it took."""
        from rich.text import Text

        started = time.monotonic()
        mark, style = "✗", "red"
        try:
            with self.drawn(title, None):
                yield
            mark, style = "✓", "green"
        finally:
            elapsed = duration(time.monotonic() - started)
            line = Text.assemble("  " * self.depth, (mark, style), f" {title} ", (elapsed, "dim"))
            self.progress.console.print(line)

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        """Yield the items under a bar that disappears at the end."""
        pace = Pace(size_of(items, total), time.monotonic())
        with self.drawn(title, pace.total) as task:
            for item in items:
                yield item
                pace.done += 1
                left = pace.remaining(time.monotonic())
                eta = "" if left is None else f"about {duration(left)} left"
                self.progress.update(task, completed=pace.done, count=pace.count(), eta=eta)


def reporter_for(*, quiet: bool) -> Reporter:
    """Choose the reporter of this run: silent with `-q`, bars in a terminal, plain lines elsewhere."""
    if quiet:
        return SILENT
    return RichReporter(bars()) if sys.stderr.isatty() else PlainReporter(sys.stderr)


def bars() -> Progress:
    """Make the display behind :class:`RichReporter`; it clears itself at the end."""
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
    """Keep bars, logs and warnings of libraries off stderr, so that ours is the only progress."""
    environment.silence_libraries()
    environment.share_cores()
    warnings.filterwarnings("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
