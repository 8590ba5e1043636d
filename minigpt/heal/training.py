"""The training loop: tune a parent, or heal what pruning took, and keep the weights that are best on the dev text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from minigpt.files import fingerprint
from minigpt.heal import checkpoint as checkpoints
from minigpt.heal.adapters import trainable
from minigpt.heal.data import Bound, TokenText
from minigpt.heal.recipe import Recipe
from minigpt.heal.run import Run
from minigpt.heal.teacher import Teacher
from minigpt.progress import SILENT, Reporter
from minigpt.types import Training

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
    with _started(model, dev, recipe, teacher, seed, bound) as run:
        if checkpoint is not None:
            run.resume(checkpoint, run_id)
        run.go(text, title, reporter, checkpoint, run_id)
        result = run.finish()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return result


def train_best(
    fresh: Callable[[], Any],
    text: TokenText,
    dev: TokenText,
    recipe: Recipe,
    rates: Sequence[float],
    *,
    steps: int,
    seed: int = 0,
    title: str = "Training",
    reporter: Reporter = SILENT,
) -> tuple[Any, Training, tuple[Training, ...]]:
    """Train at several peak rates, then once more at the best of them for `steps` steps; keep what dev text likes best.

    A short run that anneals fully often beats a long one, which overfits; a long one sees all of a longer text. So
    both have their chance, and nothing stops the long one.

    Args:
        fresh: a new copy of the model to train.
        text: training text.
        dev: text that decides.
        recipe: of the short runs; its own learning rate is not used.
        rates: peak learning rates.
        steps: of the long run; there is none if one of the short runs went on for as long.
        seed: see :func:`train`.
        title: what the progress bar says before the rate.
        reporter: told about progress.

    Returns:
        The model with its best weights, on the CPU, its training, and every run. The training is that of the run with
        the best dev loss; tokens and steps are the longest run's, and the recipe says so where the two differ.
    """
    best: tuple[float, Training, Any] | None = None
    tried: list[Training] = []

    def attempt(chosen: Recipe, name: str) -> None:
        nonlocal best
        model = fresh()
        done = train(model, text, dev, replace(chosen, distill=0.0), seed=seed, title=name, reporter=reporter)
        tried.append(done)
        loss = min((loss for _, loss in done.dev_losses), default=float("inf"))
        if best is None or loss < best[0]:
            best = (loss, done, model.to("cpu"))

    for rate in rates:
        attempt(recipe.at(rate), f"{title} at {rate:g}")
    assert best is not None
    if steps > max(each.steps for each in tried):
        rate = best[1].learning_rate
        every = max(recipe.evaluate_every, steps // LOOKS)
        long = replace(recipe.at(rate), steps=steps, patience=0, evaluate_every=every)
        attempt(long, f"{title} at {rate:g}, {steps:,} steps")
    _, chosen, model = best
    longest = max(tried, key=lambda each: each.tokens)
    if chosen is not longest:
        said = f"{chosen.recipe}; {chosen.steps} steps, which beat {longest.steps} on dev text"
        chosen = replace(chosen, tokens=longest.tokens, steps=longest.steps, recipe=said)
    return model, chosen, tuple(tried)


@contextmanager
def _started(
    model: Any, dev: TokenText, recipe: Recipe, teacher: Teacher | None, seed: int, bound: Bound | None = None
) -> Iterator[Run]:
    """A run of the model, which is a plain model again after the block."""
    torch.manual_seed(seed)
    with trainable(model, recipe) as trained:
        yield Run(trained, dev, recipe, teacher, seed, bound)


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
