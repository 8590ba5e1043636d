"""Settings of the rounds that a lottery ticket is found in."""

from __future__ import annotations

from dataclasses import dataclass, replace

from minigpt.errors import ConfigError
from minigpt.ranges import PART, Range, at_least, check_ranges

# Scores by which rounds remove single weights.
SCORES = ("magnitude", "wanda", "sparsegpt")


@dataclass(frozen=True, slots=True, kw_only=True)
class LotterySettings:
    """Settings of the rounds of the method `lottery` and of `minigpt lottery`.

    Attributes:
        rounds: number of rounds of pruning, each behind a training of `steps` steps. 1 removes all at once; with an N:M
            pattern any other number removes one weight of each group in every round.
        steps: optimizer steps of each round's training, with the recipe of `heal`. Null divides the steps of healing by
            the rounds that there are, at least one; with a single round of `minigpt lottery` it takes none: one shot.
        share: share of the neurons and KV groups that are left in each layer which a round of the method `lottery`
            removes, above 0 and below 1; the ranking is finer the smaller it is.
        layer_share: share of the layers that are left which a round of the method `lottery` removes, 0 or more and
            below 1; 0 ranks layers after the last round only.
        criterion: method that ranks the units after each round's training, by its name in `minigpt methods`.
        score: score by which the rounds of `minigpt lottery` remove single weights: `magnitude`; `wanda`, the magnitude
            times the size of the weight's input, which compares the weights of a row; or `sparsegpt`, the error that
            the removal leaves in the outputs, for which the other weights of the matrix are moved to make up in part.
            Null takes `wanda` where the pattern compares within matrices, and `magnitude` where it compares across.
        last: steps of the training after the last round, which makes the ticket of `minigpt lottery`. Null takes those
            of healing there, and those of the other rounds for units, which only rank.
        early: end the training of a round of `minigpt lottery` once the masks of five looks differ on less than this
            share of the weights, above 0 and below 1; the last training runs to its end. Null ends none early.
        rewind: step of the parent's training that the weights left are rewound to, with `rewinding=weights`; 0 is the
            parent itself.
        rewinding: `weights` rewinds weights and learning rate, `rate` only the learning rate; null takes `rate` for
            single weights and `weights` for units.

    Raises:
        ConfigError: a value is outside its range.
    """

    rounds: int = 4
    steps: int | None = None
    share: float = 0.2
    layer_share: float = 0.0
    criterion: str = "magnitude"
    score: str | None = None
    last: int | None = None
    early: float | None = None
    rewind: int = 0
    rewinding: str | None = None

    def __post_init__(self) -> None:
        ranges = {
            "rounds": at_least(1),
            "steps": at_least(0),
            "share": Range(low=0, high=1, above=True, below=True),
            "layer_share": PART,
            "last": at_least(0),
            "early": Range(low=0, high=1, above=True, below=True),
            "rewind": at_least(0),
        }
        check_ranges(self, ranges, named="lottery.{}")
        if self.rewinding not in (None, "weights", "rate"):
            raise ConfigError(f"lottery.rewinding must be weights or rate, not {self.rewinding!r}.")
        if self.score not in (None, *SCORES):
            raise ConfigError(f"lottery.score must be one of {', '.join(SCORES)}, not {self.score!r}.")
        if self.criterion == "lottery":
            raise ConfigError(f"lottery.criterion must be another method than lottery, not {self.criterion!r}.")

    def steps_of(self, healing: int, rounds: int | None = None) -> int:
        """Return the steps of each round's training, given those of healing and how many rounds there are."""
        return self.steps if self.steps is not None else max(1, healing // (rounds or self.rounds))

    def for_weights(self, healing: int, *, across: bool, rounds: int) -> LotterySettings:
        """Fill in what is left open, for a ticket of single weights.

        Args:
            healing: steps of healing.
            across: the pattern compares weights of different matrices.
            rounds: rounds of pruning, which an N:M pattern decides.

        Raises:
            ConfigError: a score is asked for that knows no such pattern, or whose work the rewinding would undo, or a
                step to rewind to that nothing is rewound to.
        """
        if self.score not in (None, "magnitude") and across:
            raise ConfigError(
                f"lottery.score={self.score} compares the weights of one matrix, and this pattern compares across "
                "matrices. Choose --pattern layer or N:M, or lottery.score=magnitude."
            )
        rewinding = self.rewinding or "rate"
        self._check_rewind(rewinding)
        if (self.score, rewinding) == ("sparsegpt", "weights"):
            raise ConfigError(
                "lottery.score=sparsegpt moves the weights that are left, and lottery.rewinding=weights would put them "
                "back. Choose lottery.rewinding=rate or lottery.score=wanda."
            )
        return replace(
            self,
            steps=0 if self.steps is None and self.rounds == 1 else self.steps_of(healing, rounds),
            score=self.score or ("magnitude" if across else "wanda"),
            last=self.last if self.last is not None else healing,
            rewinding=rewinding,
        )

    def for_units(self, healing: int) -> LotterySettings:
        """Fill in what is left open, for a ticket of whole units, given the steps of healing."""
        steps = self.steps_of(healing)
        last = self.last if self.last is not None else steps
        self._check_rewind(rewinding := self.rewinding or "weights")
        return replace(self, steps=steps, last=last, rewinding=rewinding)

    def _check_rewind(self, rewinding: str) -> None:
        """Refuse a step to rewind to where only the learning rate is rewound."""
        if self.rewind and rewinding == "rate":
            raise ConfigError(
                f"lottery.rewind={self.rewind} is a step that weights go back to, and lottery.rewinding=rate leaves "
                "them. Choose lottery.rewinding=weights."
            )
