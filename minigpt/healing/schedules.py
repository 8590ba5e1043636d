"""Search over learning rates, numbers of steps and optimizers, which keeps the weights that are best on dev text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from minigpt.healing.data import TokenText, steps_to_read
from minigpt.healing.graphs import can_capture
from minigpt.healing.ledger import Entries, Ledger
from minigpt.healing.recipe import Recipe
from minigpt.healing.training import train
from minigpt.healing.tune import Attempt, TuneSettings, best_of, long_run, next_recipe
from minigpt.progress import SILENT, Reporter
from minigpt.results import Training, TrialRun

ALL_TEXT = "all of the text"
REAL_TEXT = "the real text"


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningResult:
    """Result of a search.

    Attributes:
        model: the model with the best weights of all runs, or None where it lies on disk.
        attempts: all runs, in order.
    """

    model: Any
    attempts: tuple[Attempt, ...]

    @property
    def best(self) -> Attempt:
        """The run that gave the weights."""
        return best_of(self.attempts)

    def training_record(self) -> Training:
        """Return how the model was trained, with all runs that were tried.

        Tokens, steps and seconds are those of the run that read the most text, because it had its chance, too; what the
        run read that gave the weights stands beside them.
        """
        best, longest = self.best.training, max(self.attempts, key=lambda attempt: attempt.training.tokens)
        return replace(
            best,
            tokens=longest.training.tokens,
            steps=longest.training.steps,
            seconds=longest.training.seconds,
            kept_tokens=best.tokens,
            kept_steps=best.steps,
            recipe=_describe(self.best, longest, len(self.attempts)),
            runs=tuple(_trial(attempt) for attempt in self.attempts),
        )


def _describe(best: Attempt, longest: Attempt, runs: int) -> str:
    """Describe the run that gave the weights, and the longest run if that is another one."""
    line = f"{best.training.recipe}; {best.training.steps:,} steps on {best.text}"
    if runs > 1:
        line += f", the best of {runs} runs by dev loss"
    if longest.training.tokens > best.training.tokens:
        done, planned = longest.training.steps, longest.recipe.steps
        line += f"; the longest had {done:,} steps on {longest.text}"
        if done < planned:
            line += f" and was ended then, of {planned:,}, because the dev loss did not fall any more"
    return line


def _trial(attempt: Attempt) -> TrialRun:
    """Return the line of the report about a run."""
    training = attempt.training
    return TrialRun(
        text=attempt.text,
        optimizer=attempt.recipe.optimizer,
        learning_rate=training.learning_rate,
        planned_steps=attempt.recipe.steps,
        steps=training.steps,
        tokens=training.tokens,
        best_step=training.best_step,
        dev_loss=attempt.loss if training.dev_losses else None,
    )


def search(
    fresh: Callable[[], Any],
    text: TokenText,
    dev: TokenText,
    settings: TuneSettings,
    *,
    seed: int = 0,
    ledger: Ledger | None = None,
    title: str = "Training",
    reporter: Reporter = SILENT,
) -> TuningResult:
    """Train with several recipes, one after the other, and keep the weights that are best on dev text.

    Which run comes next, and when the search is over, says :func:`minigpt.healing.tune.next_recipe`.

    Args:
        fresh: makes a new copy of the model to train.
        text: training text.
        dev: text that decides which run is the best.
        settings: recipe and variations.
        seed: see :func:`minigpt.healing.training.train`.
        ledger: keeps finished runs on disk, so that a search that was killed goes on.
        title: what the progress bar says before the rate.
        reporter: receives the progress.

    Returns:
        The model with its best weights, on the CPU, and all runs.
    """
    entries = ledger.read() if ledger is not None else Entries(key="")
    result = TuningResult(model=None, attempts=entries.attempts)
    if ledger is not None and entries.weights:
        result = replace(result, model=ledger.load(entries, fresh().to("cpu")))
    while (recipe := next_recipe(settings, result.attempts)) is not None:
        name = f"{title} at {recipe.learning_rate:g}{_variation(recipe, settings)}"
        result, entries = _with_run(
            result, entries, fresh(), text, dev, recipe, REAL_TEXT, ledger, seed=seed, title=name, reporter=reporter
        )
    return result


def _variation(recipe: Recipe, settings: TuneSettings) -> str:
    """Say in a title what differs from the first runs of a search."""
    steps = f", {recipe.steps:,} steps" if recipe.steps != settings.steps else ""
    return steps + (", Muon" if recipe.optimizer != settings.optimizer else "")


def prolong(
    result: TuningResult,
    fresh: Callable[[], Any],
    text: TokenText,
    dev: TokenText,
    settings: TuneSettings,
    *,
    steps: int,
    ends_early: bool = False,
    seed: int = 0,
    ledger: Ledger | None = None,
    title: str = "Training",
    reporter: Reporter = SILENT,
) -> TuningResult:
    """Train once more, for a given number of steps, with the best recipe of a search.

    A short run whose learning rate falls to its end often beats a long one, which overfits; a long one sees all of a
    longer text. So both are tried.

    Args:
        result: what the search returned.
        fresh: makes a new copy of the model to train.
        text: what the long run reads.
        dev: text that decides which run is the best.
        settings: recipe and variations of the search.
        steps: steps of the long run.
        ends_early: whether it ends when the dev loss does not fall any more.
        seed: see :func:`minigpt.healing.training.train`.
        ledger: keeps the finished run on disk.
        title: what the progress bar says before the rate.
        reporter: receives the progress.

    Returns:
        The better of the search and the long run by dev loss.
    """
    entries = ledger.read() if ledger is not None else Entries(key="")
    if ledger is not None and entries.attempts:
        model = ledger.load(entries, fresh().to("cpu")) if entries.weights else result.model
        return TuningResult(model=model, attempts=(*result.attempts, *entries.attempts))
    recipe = long_run(settings, result.attempts, steps, ends_early=ends_early)
    name = f"{title} at {recipe.learning_rate:g}, {steps:,} steps"
    result, _ = _with_run(
        result, entries, fresh(), text, dev, recipe, ALL_TEXT, ledger, seed=seed, title=name, reporter=reporter
    )
    return result


def _with_run(
    result: TuningResult,
    entries: Entries,
    model: Any,
    text: TokenText,
    dev: TokenText,
    recipe: Recipe,
    name_of_text: str,
    ledger: Ledger | None,
    **options: Any,
) -> tuple[TuningResult, Entries]:
    """Train `model`, add the run to the result, and write it into the ledger; the better weights are kept."""
    # A short run on a GPU takes seconds, about as long as naming its checkpoint by a hash of all weights.
    is_slow = name_of_text == ALL_TEXT or next(model.parameters()).device.type == "cpu"
    checkpoint = ledger.checkpoint if ledger is not None and is_slow else None
    training = train(model, text, dev, recipe, checkpoint=checkpoint, **options)
    attempt = Attempt(recipe=recipe, training=training, text=name_of_text)
    is_best = not result.attempts or attempt.loss < result.best.loss
    if is_best:
        model = model.to("cpu")
    if ledger is not None:
        entries = ledger.add(entries, attempt, model if is_best else None)
    attempts = (*result.attempts, attempt)
    return TuningResult(model=model if is_best else result.model, attempts=attempts), entries


def steps_for(model: Any, text: TokenText, recipe: Recipe, tokens: int, *, seed: int = 0) -> int:
    """Return how many steps a run needs to read at least `tokens` tokens.

    Args:
        model: the model that is trained; whether its steps can be captured decides how full they are.
        text: the training text.
        recipe: settings of the run; it has no teacher.
        tokens: tokens to read in all steps together.
        seed: seed of the run.
    """
    packed = can_capture(model, recipe, next(model.parameters()).device)
    return steps_to_read(text.windows, tokens, recipe.tokens_per_step, seed, bare=recipe.bare, packed=packed)
