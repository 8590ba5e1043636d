"""Searches by loss, remembered: how far a greedy removal went in one model and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minigpt.files import read_json, write_json

# A layer's index and the part of it that is removed.
Part = tuple[int, Literal["layer", "attention", "ffn"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One step of a search.

    Attributes:
        part: the part that was removed.
        loss: nats a token without it and all that was removed before.
    """

    part: Part
    loss: float


@dataclass(frozen=True, slots=True)
class Searches:
    """Steps of earlier searches, so that a smaller size goes on where a larger one stopped.

    Attributes:
        folder: holds a file for each kind of search; without one nothing is remembered.
    """

    folder: Path | None = None

    def known(self, kind: str) -> tuple[Removal, ...]:
        """Read the steps that were done before."""
        if self.folder is None or not (path := self.folder / f"{kind}.json").exists():
            return ()
        return read_json(path, tuple[Removal, ...])

    def remember(self, kind: str, steps: Sequence[Removal]) -> None:
        """Keep the steps, if they are more than those before."""
        if self.folder is not None and len(steps) > len(self.known(kind)):
            write_json(self.folder / f"{kind}.json", list(steps))
