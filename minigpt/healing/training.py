"""The training loop: tune a parent, or heal what pruning took, and keep the weights that are best on the dev text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from minigpt.files import fingerprint
from minigpt.healing import checkpoint as checkpoints
from minigpt.healing.adapters import trainable
from minigpt.healing.data import Bound, TokenText, steps_to_read
from minigpt.healing.graphs import can_capture
from minigpt.healing.recipe import Recipe
from minigpt.healing.run import Run
from minigpt.healing.teacher import Teacher
from minigpt.machine import release
from minigpt.progress import SILENT, Reporter
from minigpt.types import Training

BACKS_OFF, SLOWER = 3, 4
"""How often a rate that does harm is divided, and by what."""
LOOKS = 12
"""At the dev text, in the long run of a search."""


def train(
    model: Any,
    text: TokenText,
    dev: TokenText,
    recipe: Recipe,
    *,
    teacher: Teacher | None = None,
    bound: Bound | None = None,
    seed: int = 0,
    backs_off: bool = False,
    checkpoint: Path | None = None,
    title: str = "Healing",
    reporter: Reporter = SILENT,
) -> Training:
    """Train `model` in place and leave it with the weights that were best on the dev text.

    Args:
        model: a causal language model; its weights become fp32, the arithmetic is that of `recipe.precision`.
        text: training text, tokenized for `model`.
        dev: text that decides when to stop; never the held-out text.
        recipe: steps, learning rate, losses.
        teacher: distilled from when `recipe.distill` is above 0; without it the loss is the cross-entropy.
        bound: what other text may cost; weights within it are kept before better ones beyond it.
        seed: order of the text, initial values and dropout of adapters; sets torch's random generator.
        backs_off: start over at a quarter of the learning rate, at most `BACKS_OFF` times, where the dev loss rises
            and has never been below its start, or the whole run gained nothing: the recipe's rate is right for the
            families it was measured on.
        checkpoint: file to resume from; written at most every five minutes, removed when the run is done. A damaged
            one, or one of another model, text, recipe or seed, is ignored.
        title: what the progress bar says.
        reporter: told about progress.

    Returns:
        What was trained and how the dev loss (bits per byte) went. A run that diverges stops there.

    Raises:
        CorpusError: there is no usable text.
        MiniGPTError: the model gives no finite probabilities to begin with.
    """
    if teacher is None or not recipe.distill:
        teacher, recipe = None, replace(recipe, distill=0.0)
    run_id = _identity(model, text, dev, recipe, teacher, bound, seed) if checkpoint is not None else ""
    given, back = recipe.learning_rate, checkpoints.backed_off(checkpoint, run_id)
    while True:
        recipe = recipe.at(given / SLOWER**back.times)
        left = backs_off and back.times < BACKS_OFF
        with _started(model, dev, recipe, teacher, seed, bound, backs_off=left) as run:
            mine = fingerprint(run_id, recipe.learning_rate, run.steps is not None)
            if checkpoint is not None:
                run.resume(checkpoint, mine)
            run.go(text, title, reporter, checkpoint, mine)
            result, overshot, diverged = run.finish(), run.overshot, run.diverged
        del run
        release()  # before the next run takes as much: fused kernels leave cycles behind
        if not overshot:
            break
        back = replace(back, times=back.times + 1, seconds=back.seconds + result.seconds)
        checkpoints.back_off(checkpoint, back)
        reporter.note(f"{title}: {_told(result, diverged)}; starting over at {given / SLOWER**back.times:g}.")
    if back.times:
        said = f"{result.recipe}, started over from {given:g}, which did harm"
        result = replace(result, recipe=said, seconds=result.seconds + back.seconds)
    if backs_off and not result.best_step and result.steps:
        reporter.note(f"{title} gained nothing on the dev text: the weights are those it began with.")
    checkpoints.remove(checkpoint)
    return result


def _told(result: Training, diverged: bool) -> str:
    """What went wrong at a rate that is too high."""
    if diverged:
        return f"the loss was no number any more at a learning rate of {result.learning_rate:g}"
    first, last = result.dev_losses[0][1], result.dev_losses[-1][1]
    return f"the dev loss went from {first:.3f} to {last:.3f} at a learning rate of {result.learning_rate:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningResult:
    """What a search over runs came to: the `model` with the best weights of all, how it was trained, and every run."""

    model: Any
    training: Training
    tried: tuple[Training, ...]

    def told(self, short: str = "", long: str = "") -> Training:
        """How the model was trained, with tokens, steps and seconds of the run that read most.

        Where that is another run the recipe says so; `short` and `long` then name what the two read.
        """
        chosen, longest = self.training, max(self.tried, key=lambda each: each.tokens)
        if chosen.tokens >= longest.tokens:
            return chosen
        said = f"{chosen.recipe}; {chosen.steps} steps{short}, which beat {longest.steps}{long} on dev text"
        return replace(chosen, tokens=longest.tokens, steps=longest.steps, seconds=longest.seconds, recipe=said)


def search(
    fresh: Callable[[], Any],
    text: TokenText,
    dev: TokenText,
    recipe: Recipe,
    rates: Sequence[float],
    *,
    seed: int = 0,
    title: str = "Training",
    reporter: Reporter = SILENT,
) -> TuningResult:
    """Train at several peak rates and keep what dev text likes best.

    Where none of them is better than no training at all, lower ones are tried, as far down as healing backs off.

    Args:
        fresh: a new copy of the model to train.
        text: training text.
        dev: text that decides.
        recipe: its own learning rate is not used, nor is there a teacher.
        rates: peak learning rates.
        seed: see :func:`train`.
        title: what the progress bar says before the rate.
        reporter: told about progress.

    Returns:
        The model with its best weights, on the CPU.
    """
    best: TuningResult | None = None
    lower = [min(rates) / SLOWER**times for times in range(1, BACKS_OFF + 1)] if rates else []
    for place, rate in enumerate([*rates, *lower]):
        if place >= len(rates) and best is not None and best.training.best_step:
            break
        name = f"{title} at {rate:g}"
        best = _better(best, fresh(), text, dev, recipe.at(rate), seed=seed, title=name, reporter=reporter)
    if best is None:
        raise ValueError("no learning rate to search over")
    return best


def prolong(
    found: TuningResult,
    fresh: Callable[[], Any],
    text: TokenText,
    dev: TokenText,
    recipe: Recipe,
    *,
    steps: int,
    seed: int = 0,
    checkpoint: Path | None = None,
    title: str = "Training",
    reporter: Reporter = SILENT,
) -> TuningResult:
    """Train once more, at the best rate so far (the lowest where none helped), for `steps` steps.

    A short run that anneals fully often beats a long one, which overfits; a long one sees all of a longer text. So
    both have their chance.

    Args:
        found: what a search came to.
        fresh: a new copy of the model to train.
        text: what the long run reads.
        dev: text that decides.
        recipe: that of the search.
        steps: of the long run.
        seed: see :func:`train`.
        checkpoint: file that the long run resumes from.
        title: what the progress bar says before the rate.
        reporter: told about progress.

    Returns:
        The better of the two by dev loss.
    """
    tried = [each.learning_rate for each in found.tried]
    rate = found.training.learning_rate if found.training.best_step else min(tried)
    every = max(recipe.evaluate_every, steps // LOOKS)
    long = replace(recipe.at(rate), steps=steps, patience=0, evaluate_every=every)
    name = f"{title} at {rate:g}, {steps:,} steps"
    told = {"seed": seed, "title": name, "reporter": reporter, "checkpoint": checkpoint}
    return _better(found, fresh(), text, dev, long, **told)


def steps_for(model: Any, text: TokenText, recipe: Recipe, tokens: int, *, seed: int = 0) -> int:
    """Steps in which a run of this model, recipe and seed, without a teacher, reads at least `tokens` tokens."""
    packed = can_capture(model, recipe, next(model.parameters()).device)
    return steps_to_read(text.windows, tokens, recipe.tokens_per_step, seed, bare=recipe.bare, packed=packed)


def _better(
    found: TuningResult | None, model: Any, text: TokenText, dev: TokenText, recipe: Recipe, **told: Any
) -> TuningResult:
    """What was found so far, or the model after training, whichever has the lower dev loss."""
    done = train(model, text, dev, replace(recipe, distill=0.0), **told)
    if found is None or _loss(done) < _loss(found.training):
        return TuningResult(model=model.to("cpu"), training=done, tried=(*(found.tried if found else ()), done))
    return replace(found, tried=(*found.tried, done))


def _loss(training: Training) -> float:
    return min((loss for _, loss in training.dev_losses), default=math.inf)


@contextmanager
def _started(
    model: Any,
    dev: TokenText,
    recipe: Recipe,
    teacher: Teacher | None,
    seed: int,
    bound: Bound | None,
    *,
    backs_off: bool,
) -> Iterator[Run]:
    """A run of the model, which is a plain model again after the block."""
    torch.manual_seed(seed)
    with trainable(model, recipe) as trained:
        yield Run(trained, dev, recipe, teacher, seed, bound, backs_off=backs_off)


def _identity(
    model: Any,
    text: TokenText,
    dev: TokenText,
    recipe: Recipe,
    teacher: Teacher | None,
    bound: Bound | None,
    seed: int,
) -> str:
    """Names a run by all that its result depends on."""
    taught: tuple[Any, ...] = ()
    if teacher is not None:
        ids = None if teacher.parent_ids is None else teacher.parent_ids.tolist()
        taught = (checkpoints.weights_digest(teacher.model), ids)
    kept = None if bound is None else (bound.text.digest, bound.limit)
    return fingerprint(recipe, seed, text.digest, dev.digest, checkpoints.weights_digest(model), taught, kept)
