"""The training loop: tune a parent, or heal what pruning took, and keep the weights that are best on the dev text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
    seed: int = 0,
    title: str = "Training",
    reporter: Reporter = SILENT,
) -> tuple[Any, Training, tuple[Training, ...]]:
    """Train at several peak rates, each for as long as the dev loss falls; then go on with the best one to the end.

    Going on gives what a run at that rate without patience gives, since the schedule is the same.

    Args:
        fresh: a new copy of the model to train.
        text: training text.
        dev: text that decides.
        recipe: its patience ends the search at a rate; its own learning rate is not used.
        rates: peak learning rates.
        seed: see :func:`train`.
        title: what the progress bar says before the rate.
        reporter: told about progress.

    Returns:
        The model with its best weights, its training, and the searches, in the order of the rates.
    """
    best: tuple[float, Any, Run, ExitStack] | None = None
    tried: list[Training] = []
    for rate in rates:
        model, stack = fresh(), ExitStack()
        run = stack.enter_context(_started(model, dev, replace(recipe.at(rate), distill=0.0), None, seed))
        run.go(text, f"{title} at {rate:g}", reporter)
        tried.append(run.told())
        if best is None or run.best_loss < best[0]:
            loser, best = best[3] if best is not None else None, (run.best_loss, model, run, stack)
        else:
            loser = stack
        if loser is not None:
            loser.close()
        del model, run, stack, loser
    assert best is not None
    _, model, run, stack = best
    with stack:
        run.recipe = replace(run.recipe, patience=0)
        run.go(text, f"{title} at {run.recipe.learning_rate:g}, to the end", reporter)
        result = run.finish()
    return model, result, tuple(tried)


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
