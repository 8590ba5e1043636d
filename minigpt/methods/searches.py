"""Saved searches by loss: the removals that a greedy search has made so far in one model on one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minigpt.errors import MiniGPTError
from minigpt.integrity import read_kept, write_kept

# The index of a layer and the part of it that is removed.
Part = tuple[int, Literal["layer", "attention", "ffn"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One step of a search.

    Attributes:
        part: the part that was removed.
        loss: nats a token without this part and all that were removed before it.
    """

    part: Part
    loss: float


@dataclass(frozen=True, slots=True)
class Searches:
    """Store of the steps of earlier searches, so that a smaller size continues where a larger one stopped.

    Attributes:
        folder: holds one file for each kind of search; None remembers nothing.
    """

    folder: Path | None = None

    def known(self, kind: str) -> tuple[Removal, ...]:
        """Read the steps of earlier searches of this kind."""
        if self.folder is None or not (path := self.folder / f"{kind}.json").exists():
            return ()
        try:
            return read_kept(path, tuple[Removal, ...])
        except MiniGPTError:  # damaged, or written by a version that recorded no hash: the search starts anew
            return ()

    def remember(self, kind: str, steps: Sequence[Removal]) -> None:
        """Save the steps, if they are more than the saved ones."""
        if self.folder is not None and len(steps) > len(self.known(kind)):
            write_kept(self.folder / f"{kind}.json", list(steps))
