"""The pace of a loop: how many items are done, and how long the rest will take."""

from __future__ import annotations

from collections import deque

from minigpt.progress.rates import roughly
from minigpt.report.text import duration

# Seconds of the latest work that an estimate rests on.
MEMORY_SECONDS = 60.0
# Seconds before the first estimate.
WARM_UP_SECONDS = 2.0


class Pace:
    """Pace of one loop, and the time left at its pace of the last minute.

    The first item does not count, because it often pays for what later ones find ready.

    Attributes:
        total: number of items, if it is known.
        started: time at which the loop started, in seconds.
        done: items done so far.
    """

    def __init__(self, total: float | None, now: float) -> None:
        self.total = total
        self.started = now
        self.done = 0
        # Times at which items were done: those of the last minute, and the one before them.
        self._marks: deque[tuple[float, int]] = deque()

    def advance(self, now: float) -> None:
        """Count one more item, done now."""
        self.done += 1
        self._marks.append((now, self.done))
        while len(self._marks) > 2 and self._marks[1][0] <= now - MEMORY_SECONDS:
            self._marks.popleft()

    def remaining(self, now: float) -> float | None:
        """Estimate the seconds left; None without a total, or before there is evidence."""
        if not self.total or self.done < 2:
            return None
        since, before = self._marks[0]
        if now - since < WARM_UP_SECONDS:
            return None
        return max(self.total - self.done, 0.0) * (now - since) / (self.done - before)

    def left(self, now: float) -> str:
        """Describe the time left, as roughly as it is known; empty if it is not, or if nothing is left."""
        seconds = self.remaining(now)
        return "" if not seconds else f"about {roughly(seconds)} left"

    def count(self) -> str:
        """Format the number of items done, and of how many where that is known."""
        return f"{self.done:,}/{self.total:,.0f}" if self.total else f"{self.done:,} done"

    def line(self, title: str, now: float) -> str:
        """Format one line of plain progress."""
        parts = (f"{title}: {self.count()} after {duration(now - self.started)}", self.left(now))
        return ", ".join(part for part in parts if part)
