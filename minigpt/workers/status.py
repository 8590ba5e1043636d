"""The reporter of a worker: it keeps what the worker does in a file, which whoever started it reads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, TypeVar

from minigpt.errors import MiniGPTError
from minigpt.files import write_json
from minigpt.workers.crew import Status

T = TypeVar("T")
# Seconds between two writes.
PACE = 2.0


class StatusReporter:
    """Reporter that writes the innermost stage or loop, and how far it is, into a file."""

    def __init__(self, path: Path, log: TextIO) -> None:
        self.path, self.log = path, log
        self.titles: list[str] = []
        self._written = 0.0

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Write the title (:meth:`minigpt.progress.Reporter.stage`)."""
        self.titles.append(title)
        self._write("", always=True)
        try:
            yield
        finally:
            self.titles.pop()

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        """Yield the items, and write the title and how many are done."""
        count = total if total is not None else len(items) if isinstance(items, Sized) else None
        self.titles.append(title)
        try:
            for number, item in enumerate(items, 1):
                self._write(f" {number}" + (f" of {count:g}" if count else ""))
                yield item
        finally:
            self.titles.remove(title)

    def note(self, message: str) -> None:
        """Print one line to the worker's own log."""
        with suppress(OSError, ValueError):
            self.log.write(f"{message}\n")
            self.log.flush()

    def detail(self, message: str) -> None:
        """Drop the message: the count says enough."""
        return None

    def measure(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Drop the numbers."""
        return None

    def _write(self, words: str, *, always: bool = False) -> None:
        """Write the outermost and the innermost title, at most every few seconds."""
        if not self.titles or (not always and time.monotonic() - self._written < PACE):
            return
        self._written = time.monotonic()
        line = ", ".join(dict.fromkeys((self.titles[0], self.titles[-1]))) + words
        with suppress(MiniGPTError, OSError):
            write_json(self.path, Status(words=line, time=time.time()))
