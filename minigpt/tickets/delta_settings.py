"""Settings of how a delta ticket is made, which are read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minigpt.ranges import SHARE, above, at_least, check_ranges

# How a ticket stores what it changes: new values as they are, or differences in 8 or 4 bits.
Values = Literal["exact", "int8", "int4"]
VALUES: tuple[Values, ...] = ("exact", "int8", "int4")
# What a change counts: its size, or the loss that taking it back is expected to cost.
Score = Literal["magnitude", "fisher"]
# Where changes compete: all weights of the model, or those of each tensor among themselves.
Scope = Literal["global", "layer"]

# Peak learning rate of the healing of merged tickets, unless one is given.
MERGED_RATE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaSettings:
    """Settings of how a delta ticket is made, where `--delta` asks for one.

    Attributes:
        rounds: number of rounds that shrink the mask; 1 keeps the largest changes at once.
        steps: optimizer steps of all rounds together.
        last: share of the steps that the last round gets, above 0 and at most 1; the others share the rest equally.
        learning_rate: peak learning rate of each round.
        distill: weight of the divergence from the tuned parent in the loss, 0 to 1.
        score: what a change counts: `magnitude`, its size, or `fisher`, the loss that taking it back is expected to
            cost.
        scope: let all weights compete for a place in the mask (`global`), or those of each tensor (`layer`).
        values: how the changes are stored: `exact`, or as differences in `int8` or `int4`, which are smaller and
            rounded.

    Raises:
        ConfigError: a value is outside its range.
    """

    rounds: int = 3
    steps: int = 400
    last: float = 0.5
    learning_rate: float = 2e-3
    distill: float = 1.0
    score: Score = "magnitude"
    scope: Scope = "global"
    values: Values = "exact"

    def __post_init__(self) -> None:
        ranges = {
            "rounds": at_least(1),
            "steps": at_least(0),
            "last": above(0, 1),
            "learning_rate": above(0),
            "distill": SHARE,
        }
        check_ranges(self, ranges, named="delta.{}")
