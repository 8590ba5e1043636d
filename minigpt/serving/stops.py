"""Text pieces that end at a stop string, of which nothing is shown."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Filter that passes text on until a stop string appears, also where one is spread over several pieces.

    Attributes:
        stopped: whether a stop string has appeared; everything after it is dropped.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._kept, self.stopped = tuple(stops), "", False

    def feed(self, piece: str) -> str:
        """Take the next piece, and return the text that is now safe to show."""
        if self.stopped:
            return ""
        text = self._kept + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.stopped, self._kept = True, ""
            return text[: min(places)]
        size = max((overlap(text, stop) for stop in self._stops), default=0)
        self._kept = text[len(text) - size :]
        return text[: len(text) - size]

    def flush(self) -> str:
        """Return what was kept back because it could have been the start of a stop string."""
        kept, self._kept = self._kept, ""
        return kept


def overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` with which `stop` begins."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
