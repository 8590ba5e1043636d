"""Rounds of iterative magnitude pruning on the fine-tuning delta.

A round keeps the largest changes of the last one, gives all other weights their values in the parent back, and trains
on with the mask. Frankle & Carbin 2019 prune weights; here the difference to the parent is pruned, and "rewinding"
means that a weight returns to the parent. The share that is kept falls geometrically from 1 to the ticket's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.errors import ConfigError
from minigpt.healing import Bound, Mask, Recipe, Teacher, TokenText, train
from minigpt.healing.stored import StoredTeacher
from minigpt.progress import SILENT, Reporter
from minigpt.results import Training
from minigpt.tickets.delta import parameters_of
from minigpt.tickets.delta_masks import scores_of, squared_gradients, top_mask
from minigpt.tickets.delta_settings import DeltaSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: the share of the weights that it may change, and its steps."""

    fraction: float
    steps: int


def rounds_of(fraction: float, settings: DeltaSettings) -> tuple[Round, ...]:
    """List the rounds on the way to a share of changed weights: round r of n keeps fraction^(r / n).

    Args:
        fraction: share of the last round, above 0 and at most 1.
        settings: number of rounds and their steps.
    """
    count = settings.rounds
    final = settings.steps if count == 1 else round(settings.last * settings.steps)
    steps = [(settings.steps - final) // max(1, count - 1)] * (count - 1) + [final]
    return tuple(Round(fraction=fraction ** ((index + 1) / count), steps=steps[index]) for index in range(count))


def round_recipe(recipe: Recipe, settings: DeltaSettings, steps: int) -> Recipe:
    """Return the recipe of a round: all weights by AdamW without weight decay, at the ticket's own rate.

    Args:
        recipe: the recipe that gives windows, batches and precision.
        settings: learning rate and distillation.
        steps: steps of the round.
    """
    return replace(
        recipe,
        steps=steps,
        learning_rate=settings.learning_rate,
        distill=settings.distill,
        warmup=min(recipe.warmup, steps // 10),
        evaluate_every=max(1, min(recipe.evaluate_every, steps // 4)),
        patience=0,
        adapter="full",
        optimizer="adamw",
        weight_decay=0.0,
        noise=0.0,
    )


def mask_of(
    model: Any,
    parent: Mapping[str, Tensor],
    fraction: float,
    settings: DeltaSettings,
    *,
    text: TokenText | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Choose the changes of a trained model that are kept.

    Args:
        model: the trained model.
        parent: the parent's tensors by name.
        fraction: share of the weights to keep.
        settings: score and scope.
        text: training text, for the score `fisher`.
        recipe: size and precision of its batches.
        seed: order of the text.
    """
    fisher = None
    if settings.score == "fisher":
        if text is None or recipe is None:
            raise ConfigError("The score fisher needs training text.")
        fisher = squared_gradients(model, text, recipe, seed=seed)
    return top_mask(scores_of(parent, parameters_of(model), fisher), fraction, settings.scope)


@torch.no_grad()
def rewind(model: Any, parent: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> None:
    """Give all weights outside of a mask their values in the parent back, in place."""
    for name, tensor in parameters_of(model).items():
        before = parent[name].to(tensor.device, tensor.dtype)
        tensor.copy_(torch.where(mask[name].to(tensor.device), tensor, before))


def train_masked(
    model: Any,
    mask: Mapping[str, Tensor],
    text: TokenText,
    dev: TokenText,
    recipe: Recipe,
    *,
    teacher: Teacher | StoredTeacher | None = None,
    bound: Bound | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    title: str = "Training the ticket",
    reporter: Reporter = SILENT,
) -> Training:
    """Train the weights of a mask and keep the best by dev loss; the others stay equal to the bit.

    Args:
        model: the model, in which the weights outside of the mask are the parent's.
        mask: boolean tensors by name.
        text: training text.
        dev: text that decides which weights are kept.
        recipe: recipe of :func:`round_recipe`.
        teacher: the tuned parent or stored answers, where the recipe distills.
        bound: what general text may cost (None: anything).
        seed: order of the text.
        checkpoint: file to resume from.
        title: what the progress says.
        reporter: receives progress.
    """
    free = Mask(free=dict(mask))
    return train(
        model,
        text,
        dev,
        recipe,
        teacher=teacher,
        bound=bound,
        mask=free,
        seed=seed,
        checkpoint=checkpoint,
        title=title,
        reporter=reporter,
    )


def find_ticket(
    model: Any,
    parent: Mapping[str, Tensor],
    fraction: float,
    settings: DeltaSettings,
    text: TokenText,
    dev: TokenText,
    recipe: Recipe,
    *,
    teacher: Teacher | None = None,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> tuple[dict[str, Tensor], tuple[Training, ...]]:
    """Shrink the changes of a trained model to a share of its weights, in all rounds, in memory.

    Args:
        model: the trained model in fp32, which becomes the specialist.
        parent: the parent's tensors by name, in the type that is stored.
        fraction: share of the weights that may differ in the end.
        settings: rounds, score and training.
        text: training text.
        dev: text that decides which weights are kept.
        recipe: gives windows, batches and precision.
        teacher: the tuned parent, where the settings distill.
        seed: order of the text.
        reporter: receives progress.

    Returns:
        The last mask, and the record of each round's training.
    """
    trainings, mask = [], dict[str, Tensor]()
    for index, step in enumerate(rounds_of(fraction, settings)):
        mask = mask_of(model, parent, step.fraction, settings, text=text, recipe=recipe, seed=seed)
        rewind(model, parent, mask)
        planned = round_recipe(recipe, settings, step.steps)
        trainings.append(
            train_masked(model, mask, text, dev, planned, teacher=teacher, seed=seed + index, reporter=reporter)
        )
    return mask, tuple(trainings)
