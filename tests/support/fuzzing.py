"""Bad input by the thousand: a folder that is gone afterwards, and a count of how each kind of input ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigpt.errors import MiniGPTError

# Seconds after which an input counts as one that hangs.
SECONDS = 60


@dataclass
class Inputs:
    """The inputs that were tried, and the folder that they lie in while they are read.

    Attributes:
        root: the folder.
        ends: how often each kind of input ended in a result, a sentence, a traceback or not at all.
        slowest: the most seconds that an input took.
    """

    root: Path | None = None
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: float = 0.0

    def folder(self) -> Path:
        """A new folder for one input."""
        if self.root is None:
            self.root = Path(tempfile.mkdtemp(prefix="minigpt-fuzz-"))
        return Path(tempfile.mkdtemp(dir=self.root))

    def written(self, content: bytes, suffix: str) -> Path:
        """A file with this content."""
        path = self.folder() / f"x{suffix}"
        path.write_bytes(content)
        return path

    def ends_well(self, kind: str, job: Callable[[], object]) -> None:
        """Read one input: it gives a result or one sentence, and soon."""
        started = time.perf_counter()
        end = ""
        try:
            with limited(SECONDS):
                job()
            end = "result"
        except MiniGPTError as error:
            assert str(error).strip()
            end = "sentence"
        except Exception as error:
            end = "hang" if isinstance(error, TimeoutError) else "traceback"
            raise
        finally:
            if end:  # a run that is interrupted says nothing about its input
                self.ends[kind, end] += 1
                self.slowest = max(self.slowest, time.perf_counter() - started)

    def close(self) -> None:
        """Remove the folder, and append the counts to the file MINIGPT_FUZZ_LOG."""
        if self.root is not None:
            shutil.rmtree(self.root, ignore_errors=True)
            self.root = None
        rows: dict[str, dict[str, int]] = {}
        for (kind, end), count in sorted(self.ends.items()):
            rows.setdefault(kind, {})[end] = count
        summary: dict[str, Any] = {"inputs": sum(self.ends.values()), "slowest": round(self.slowest, 2), "kinds": rows}
        with Path(os.environ.get("MINIGPT_FUZZ_LOG", os.devnull)).open("a", encoding="utf-8") as log:
            log.write(json.dumps(summary) + "\n")
        self.ends.clear()
        self.slowest = 0.0


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Interrupt the block after so many seconds, where the system has a signal for that."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def over(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


INPUTS = Inputs()
