"""Arithmetic of the time that a run still takes: work in operations, and speeds that this very run measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["read", "train", "evaluate", "sample"]
# Kinds whose speed stands for another's until that was measured: all three are the same matrix products. Sampling
# writes token by token, and no other speed says anything about it; one stage's time says nothing about another's.
STAND_INS: Mapping[Kind, tuple[Kind, ...]] = {
    "read": ("evaluate", "train"),
    "train": ("read", "evaluate"),
    "evaluate": ("read", "train"),
    "sample": (),
}
# Least time left that is worth a line.
LEAST_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Work of a stage, in operations of the model that it reads or trains.

    Attributes:
        kind: kind of the work.
        operations: operations in all.
        per_token: operations for each token that a loop over batches reads.
        loop: beginning of the title of a loop over steps.
        per_item: operations for each item of that loop.
    """

    kind: Kind
    operations: float
    per_token: float = 0.0
    loop: str = ""
    per_item: float = 0.0

    def of_item(self, item: object, title: str) -> tuple[Kind, float]:
        """Return the kind and the operations of one item of a loop; none where the item says nothing."""
        if self.loop and title.startswith(self.loop):
            return self.kind, self.per_item
        return "read", self.per_token * tokens_in(item)


class Rates:
    """Speeds of the kinds of work, in operations a second, over all that was measured."""

    def __init__(self) -> None:
        self._sums: dict[Kind, tuple[float, float]] = {}

    def measure(self, kind: Kind, operations: float, seconds: float) -> None:
        """Add work that was done, and the time that it took."""
        before = self._sums.get(kind, (0.0, 0.0))
        self._sums[kind] = (before[0] + operations, before[1] + seconds)

    def of(self, kind: Kind, *, own: bool = False) -> float | None:
        """Return the speed of a kind: its own, or (unless `own`) one that stands for it; None without evidence."""
        for name in (kind, *(() if own else STAND_INS[kind])):
            operations, seconds = self._sums.get(name, (0.0, 0.0))
            if operations > 0 and seconds > 0:
                return operations / seconds
        return None

    def seconds(self, work: Work, *, own: bool = False) -> float | None:
        """Predict the time of some work; None without evidence (:meth:`of`)."""
        rate = self.of(work.kind, own=own)
        return None if rate is None else work.operations / rate

    def total(self, works: Iterable[Work], *, own: bool = False) -> float | None:
        """Predict the time of all of the work; None if any of it cannot be predicted (:meth:`of`)."""
        times = [self.seconds(work, own=own) for work in works]
        known = [time for time in times if time is not None]
        return sum(known) if len(known) == len(times) else None


def tokens_in(item: object) -> int:
    """Count the tokens of a batch, or of the rows of one; 0 where the item holds none."""
    tokens = getattr(item, "tokens", None)
    if isinstance(tokens, int):
        return tokens
    if isinstance(tokens, Sequence):
        return len(tokens)
    return sum(map(tokens_in, item)) if isinstance(item, list | tuple) else 0


def roughly(seconds: float) -> str:
    """Round a time to what an estimate can say: 40 s, 8 min, 1 h 20 min."""
    if seconds < 55:
        return f"{max(10, 10 * round(seconds / 10))} s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(10 * round(minutes / 10), 60)
    return f"{hours} h {rest:02d} min" if rest else f"{hours} h"


def words_of_left(seconds: float | None) -> str:
    """Say the time that is left in all; empty where it is not known, or too short to be worth a line."""
    return f"About {roughly(seconds)} left in all" if seconds is not None and seconds >= LEAST_SECONDS else ""
