"""Stages of a curation by name: each is a function of one shard that reads files and writes a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.curation import duplicates, pool, reading, shards, sides
from minigpt.curation.context import Context, context_of

STEPS: Mapping[str, Callable[[Context, int, int], None]] = {
    "read": reading.read,
    "sketch": reading.sketch,
    "exact": duplicates.exact,
    "pairs": duplicates.pairs,
    "verify": duplicates.verify,
    "decide": duplicates.resolve,
    "split": sides.split,
    "measured": sides.measured,
    "guard": pool.guard,
    "score": pool.score,
    "choose": pool.choose,
    "write": shards.write,
}


@dataclass(frozen=True)
class Step:
    """A stage as datatrove calls it, once for each task.

    Attributes:
        work: Folder of the curation.
        name: Name of the stage.
        round: Number of the round, for stages that are repeated.
    """

    work: str
    name: str
    round: int = 0

    def __call__(self, _data: Any, rank: int, _tasks: int) -> None:
        """Run one task."""
        STEPS[self.name](context_of(Path(self.work)), rank, self.round)
