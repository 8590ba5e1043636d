"""Progress on stderr: live bars in a terminal, plain lines elsewhere, both with an estimate of the time left."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from minigpt import environment
from minigpt.cli.pace import Pace
from minigpt.cli.streams import is_terminal
from minigpt.escaping import printable
from minigpt.progress import SILENT, Reporter
from minigpt.report.text import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")
# Seconds between two lines of plain progress.
PLAIN_SECONDS = 30.0


def size_of(items: Iterable[Any], total: float | None) -> float | None:
    """Return the number of items, where it can be known."""
    if total is not None:
        return total
    return len(items) if isinstance(items, Sized) else None


class PlainReporter:
    """Reporter for logs and pipes.

    It prints a line when a stage starts and ends, one about every 30 seconds in between, and every detail.

    Attributes:
        stream: the log.
        titles: titles of the loops that run, the innermost last.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.titles: list[str] = []

    def note(self, message: str) -> None:
        """Print one line."""
        # Progress must not stop a job whose terminal is gone.
        try:
            click.echo(printable(message), file=self.stream)
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
        self.titles.append(title)
        try:
            for item in items:
                yield item
                now = time.monotonic()
                pace.advance(now)
                if now - last >= PLAIN_SECONDS:
                    self.note(pace.line(title, now))
                    last = now
        finally:
            self.titles.remove(title)

    def detail(self, message: str) -> None:
        """Print one line under the title of the innermost loop."""
        self.note(": ".join([*self.titles[-1:], message]))

    def measure(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Show nothing: `detail` says as much as a terminal needs."""
        return None


class RichReporter:
    """Reporter for a terminal: finished stages stay as lines, and running ones are drawn below them.

    The display runs only while something is tracked, so that it never disturbs what a command writes to stdout.

    Attributes:
        progress: the display.
        tasks: lines of the display that are open, the innermost last.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: list[TaskID] = []

    @contextmanager
    def drawn(self, title: str, total: float | None) -> Iterator[TaskID]:
        """Open a line of the display, indented under the lines that are already open."""
        if not self.tasks:
            self.progress.start()
        indent = "  " * len(self.tasks)
        task = self.progress.add_task(f"{indent}{printable(title)}", total=total, count="", eta="", detail="")
        self.tasks.append(task)
        try:
            yield task
        finally:
            self.tasks.remove(task)
            self.progress.remove_task(task)
            if not self.tasks:
                self.progress.stop()

    def note(self, message: str) -> None:
        """Print one dim line above the bars."""
        self.progress.console.print(printable(message), style="dim", markup=False, highlight=False)

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
            line = Text.assemble("  " * len(self.tasks), (mark, style), f" {printable(title)} ", (elapsed, "dim"))
            self.progress.console.print(line)

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        """Yield the items under a bar that disappears at the end."""
        pace = Pace(size_of(items, total), time.monotonic())
        with self.drawn(title, pace.total) as task:
            for item in items:
                yield item
                now = time.monotonic()
                pace.advance(now)
                self.progress.update(task, completed=pace.done, count=pace.count(), eta=pace.left(now))

    def detail(self, message: str) -> None:
        """Show a few words at the end of the innermost line."""
        if self.tasks:
            self.progress.update(self.tasks[-1], detail=printable(message))

    def measure(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Show nothing: `detail` says as much as a terminal needs."""
        return None


def reporter_for(*, quiet: bool) -> Reporter:
    """Choose the reporter of this run: silent with `-q`, bars in a terminal, plain lines elsewhere."""
    if quiet:
        return SILENT
    return RichReporter(bars()) if is_terminal(sys.stderr) else PlainReporter(sys.stderr)


def bars() -> Progress:
    """Make the display behind :class:`RichReporter`; it clears itself at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}", style="dim"),
        TextColumn("{task.fields[detail]}", style="dim", markup=False),
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
