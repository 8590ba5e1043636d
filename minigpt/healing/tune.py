"""Search for the best training of a tuned parent: its settings, and the rule that names the next run.

The tuned parent is what a specialist is compared with, so it must be as good as the text allows. Each run has a
learning rate that falls to its end: weights from the middle of a longer schedule are not annealed. The rule is a pure
function of the runs so far, so that a search that was killed goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from minigpt.errors import ConfigError
from minigpt.healing.recipe import Recipe
from minigpt.ranges import Range, above, at_least, check_ranges
from minigpt.results import Training

# How often a learning rate that did harm is lowered before the run keeps it.
MAX_BACK_OFFS = 3
# Divisor of a learning rate that did harm.
BACK_OFF_DIVISOR = 4
# How often the lowest rate is halved where it is the best.
MAX_HALVINGS = 2
# A shortened run rises to its peak in at most one part in this many of its steps.
LEAST_WARMUP_SHARE = 10
# Most evaluations, about, of the long run after a search.
LONG_RUN_EVALUATIONS = 48


# Ranges of the fields of a search that a recipe does not have.
TUNE_RANGES: Mapping[str, Range] = {
    "rates": Range(low=0, above=True, high=1e6, empty=False),
    "shorter": Range(low=0, high=1, above=True, below=True),
    "longer": at_least(0, 1000),
    "muon": above(0, 1e6),
    "looks": at_least(0),
    "seeds": at_least(1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSettings(Recipe):
    """Settings of the search for the tuned parent: a recipe, and what is varied in it.

    Attributes:
        rates: Multiples of `learning_rate`, each of which gets a run of `steps` steps; more of them take longer. Where
            the lowest of several is the best it is halved, at most twice, and where none helps, lower ones are tried.
        shorter: Shares of `steps`, each of which gets a run at the best rate; short runs counter overfitting.
        longer: Multiple of `steps` for one more run where `steps` are better than all shorter runs; 0 tries none.
        muon: Multiples of the best rate, each of which gets a run with Muon at the best number of steps; an empty list
            leaves it at the recipe's optimizer.
        looks: Number of evaluations without a lower dev loss after which the long run over sampled text ends; 0 lets
            it run to its end.
        seeds: Number of tuned parents with the best recipe, each with another order of the text. The first is the
            tuned parent, and the others only measure the noise of a run; each takes as long as the best run.

    Raises:
        ConfigError: a value is outside its range.
    """

    rates: tuple[float, ...] = (0.5, 1.0, 2.0)
    shorter: tuple[float, ...] = (0.5,)
    longer: float = 2.0
    muon: tuple[float, ...] = (0.5,)
    looks: int = 3
    seeds: int = 1

    def __post_init__(self) -> None:
        Recipe.__post_init__(self)
        check_ranges(self, TUNE_RANGES, named="{} of tuning")
        if 0 < self.longer <= 1:
            raise ConfigError(f"longer of tuning must be 0 or above 1, not {self.longer!r}.")

    def recipe(self) -> Recipe:
        """Return the plain recipe, without what is varied; it has no teacher."""
        values = {item.name: getattr(self, item.name) for item in fields(Recipe)}
        return Recipe(**{**values, "distill": 0.0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a search.

    Attributes:
        recipe: its settings.
        training: its record.
        text: name of the text that it read, for the report.
    """

    recipe: Recipe
    training: Training
    text: str = "the training text"

    @property
    def loss(self) -> float:
        """Lowest dev loss of the run; infinity if it has none."""
        return min((loss for _, loss in self.training.dev_losses), default=math.inf)

    @property
    def helped(self) -> bool:
        """True if the weights of a later step are better than those it began with."""
        return self.training.best_step > 0


def best_of(attempts: Sequence[Attempt]) -> Attempt:
    """Return the run with the lowest dev loss, the first of equal ones."""
    return min(attempts, key=lambda attempt: attempt.loss)


def next_recipe(settings: TuneSettings, attempts: Sequence[Attempt]) -> Recipe | None:
    """Name the recipe of the next run of a search, or None if it is over.

    First come all rates over all steps. Where the lowest is the best it is halved, as the best one may lie below. Where
    none is better than no training, lower rates follow, one after the other. Then the best rate gets shorter runs, a
    longer one if none of the shorter ones is better, and Muon at the number of steps that is best.

    Args:
        settings: recipe and variations.
        attempts: the runs so far, all of this search.
    """
    done = [attempt.recipe for attempt in attempts]
    return next((recipe for recipe in _recipes(settings, attempts) if recipe not in done), None)


def _recipes(settings: TuneSettings, attempts: Sequence[Attempt]) -> Iterator[Recipe]:
    """Yield the recipes of a search in order, as far as the runs so far decide them.

    A recipe is only drawn from this once all before it were run, so a later part may read the results of earlier ones.
    """
    base = settings.recipe()
    rates = [factor * base.learning_rate for factor in settings.rates]
    yield from (base.at(rate) for rate in rates)
    for times in range(1, MAX_HALVINGS + 1):
        lowest = base.at(min(rates) / 2 ** (times - 1))
        if len(rates) > 1 and _beats_all_others(lowest, attempts):
            yield base.at(lowest.learning_rate / 2)
    for times in range(1, MAX_BACK_OFFS + 1):
        if not any(attempt.helped for attempt in attempts):
            yield base.at(min(rates) / BACK_OFF_DIVISOR**times)
    if not any(attempt.helped for attempt in attempts):
        return
    full = best_of([attempt for attempt in attempts if attempt.recipe == base.at(attempt.recipe.learning_rate)])
    yield from shorter_runs(full.recipe, settings.shorter)
    plain = [attempt for attempt in attempts if attempt.recipe.optimizer == base.optimizer]
    within = best_of([attempt for attempt in plain if attempt.recipe.steps <= base.steps])
    if settings.longer and within.recipe.steps == base.steps:
        yield replace(within.recipe, steps=round(settings.longer * base.steps))
    if base.adapter == "full" and base.optimizer != "muon":
        best = best_of(plain).recipe
        yield from (replace(best.at(factor * best.learning_rate), optimizer="muon") for factor in settings.muon)


def _beats_all_others(recipe: Recipe, attempts: Sequence[Attempt]) -> bool:
    """Say whether the run of a recipe helped, and has a lower dev loss than every other run over as many steps."""
    same = [attempt for attempt in attempts if attempt.recipe == recipe.at(attempt.recipe.learning_rate)]
    others = [attempt.loss for attempt in same if attempt.recipe != recipe]
    return any(
        attempt.helped and attempt.loss < min(others, default=-math.inf) for attempt in same if attempt.recipe == recipe
    )


def shorter_runs(recipe: Recipe, shares: Sequence[float]) -> Iterator[Recipe]:
    """Yield a recipe with fewer steps for each share of its steps; the warm-up shrinks with them."""
    for share in shares:
        if 0 < (steps := round(share * recipe.steps)) < recipe.steps:
            warmup = min(recipe.warmup, max(1, steps // LEAST_WARMUP_SHARE))
            yield replace(recipe, steps=steps, warmup=warmup)


def long_run(settings: TuneSettings, attempts: Sequence[Attempt], steps: int, *, ends_early: bool) -> Recipe:
    """Return the recipe of one long run after a search: that of the best run, or of the lowest rate if none helped.

    Args:
        settings: recipe and variations.
        attempts: the runs of the search.
        steps: steps of the long run.
        ends_early: whether it ends after `settings.looks` evaluations without a lower dev loss.
    """
    helpful = [attempt for attempt in attempts if attempt.helped]
    source = best_of(helpful) if helpful else min(attempts, key=lambda attempt: attempt.recipe.learning_rate)
    every = max(settings.evaluate_every, steps // LONG_RUN_EVALUATIONS)
    patience = settings.looks * every if ends_early else 0
    recipe = replace(source.recipe, steps=steps, warmup=settings.warmup, evaluate_every=every, patience=patience)
    return recipe
