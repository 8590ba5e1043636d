"""Settings of the rounds that a lottery ticket is found in."""

from __future__ import annotations

from dataclasses import dataclass

from minigpt.errors import ConfigError
from minigpt.ranges import PART, Range, at_least, check_ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class LotterySettings:
    """Settings of the rounds of the method `lottery` and of `minigpt lottery`.

    Attributes:
        rounds: number of rounds of pruning; more rounds find better tickets and take longer in proportion.
        steps: optimizer steps of each round's training, with the recipe of `heal`; null divides the steps of healing
            by the rounds, at least one.
        share: share of the neurons and KV groups that are left in each layer which a round of the method `lottery`
            removes, above 0 and below 1; the ranking is finer the smaller it is.
        layer_share: share of the layers that are left which a round of the method `lottery` removes, 0 or more and
            below 1; 0 ranks layers after the last round only.
        criterion: method that ranks the units after each round's training, by its name in `minigpt methods`.
        rewind: step of the parent's training that the weights left are rewound to; 0 is the parent itself.
        rewinding: `weights` rewinds weights and learning rate, `rate` only the learning rate.

    Raises:
        ConfigError: a value is outside its range.
    """

    rounds: int = 4
    steps: int | None = None
    share: float = 0.2
    layer_share: float = 0.0
    criterion: str = "magnitude"
    rewind: int = 0
    rewinding: str = "weights"

    def __post_init__(self) -> None:
        ranges = {
            "rounds": at_least(1),
            "steps": at_least(0),
            "share": Range(low=0, high=1, above=True, below=True),
            "layer_share": PART,
            "rewind": at_least(0),
        }
        check_ranges(self, ranges, named="lottery.{}")
        if self.rewinding not in ("weights", "rate"):
            raise ConfigError(f"lottery.rewinding must be weights or rate, not {self.rewinding!r}.")
        if self.criterion == "lottery":
            raise ConfigError(f"lottery.criterion must be another method than lottery, not {self.criterion!r}.")

    def steps_of(self, healing: int) -> int:
        """Return the steps of each round's training, given those of healing."""
        return self.steps if self.steps is not None else max(1, healing // self.rounds)
