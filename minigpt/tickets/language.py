"""Tickets of language models: rounds trained by healing, on domain text, with or without a teacher; and controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.errors import ConfigError
from minigpt.files import fingerprint
from minigpt.healing import Recipe, Teacher, TokenText, train
from minigpt.healing.checkpoint import weights_digest
from minigpt.healing.masks import Mask
from minigpt.progress import SILENT, Reporter
from minigpt.tickets.masks import Masks
from minigpt.tickets.rounds import Trained, Weights, load_tensors, save_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A training that all rounds and all controls share: one model, text, recipe, teacher and seed.

    Attributes:
        model: the model whose weights are exchanged and trained; its shapes and its device are used.
        text: training text.
        dev: text that decides which weights are kept.
        recipe: steps, learning rate and losses.
        teacher: teacher of the distillation, or None.
        seed: seed of the order of the text.
        backs_off: whether a rate that does harm is lowered.
        watch: returns, at every start, what is asked after each evaluation behind the warm-up; True ends the training.
        keeps_last: whether the weights of the last step are kept, and not those that were best on `dev`.
    """

    model: Any
    text: TokenText
    dev: TokenText
    recipe: Recipe
    teacher: Teacher | None = None
    seed: int = 0
    backs_off: bool = False
    watch: Callable[[], Callable[[Any], bool]] | None = None
    keeps_last: bool = False
    reporter: Reporter = SILENT

    @property
    def key(self) -> str:
        """Fingerprint of everything but the weights that a training starts from."""
        taught_by = weights_digest(self.teacher.model) if self.teacher is not None else ""
        return fingerprint(self.recipe, self.seed, self.text.digest, self.dev.digest, taught_by, self.backs_off)

    def __call__(self, weights: Weights, masks: Masks, number: int, checkpoint: Path | None = None) -> Trained:
        """Train the weights under masks; the arguments are those of :data:`minigpt.tickets.rounds.Train`."""
        put(self.model, weights)
        partial = {name: mask for name, mask in masks.items() if not bool(mask.all())}
        result = train(
            self.model,
            self.text,
            self.dev,
            self.recipe,
            teacher=self.teacher,
            mask=Mask(free=partial, trains_others=True) if partial else None,
            seed=self.seed,
            backs_off=self.backs_off,
            checkpoint=checkpoint,
            title=f"Round {number}",
            watch=self.watch,
            keeps_last=self.keeps_last,
            reporter=self.reporter,
        )
        losses = dict(result.dev_losses)
        facts = {
            "dev_bits_per_byte": losses.get(result.best_step, min(losses.values())),
            "best_step": float(result.best_step),
            "steps": float(result.steps),
            "tokens": float(result.tokens),
            "training_seconds": result.seconds,
        }
        return Trained(weights=take(self.model), facts=facts)


def take(model: Any) -> dict[str, Tensor]:
    """Copy all weights of a model by name, in fp32 on the CPU; tied weights stand there once."""
    return {name: weight.detach().float().cpu().clone() for name, weight in model.named_parameters()}


@torch.no_grad()
def put(model: Any, weights: Mapping[str, Tensor]) -> Any:
    """Give a model these weights, in place, and return it."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
    return model


def early_point(lesson: Lesson, start: Weights, steps: int, checkpoint: Path | None = None) -> dict[str, Tensor]:
    """Train all weights for the first steps of a lesson: the point that survivors are rewound to.

    The learning rate is that of the whole lesson, which is still warming up, and the weights are those of the last
    step, not an average and not the best. They are kept beside the checkpoint, so that all rounds rewind to the same.

    Args:
        lesson: the training whose beginning is used.
        start: the parent's weights.
        steps: number of steps; 0 is the start itself.
        checkpoint: file for a checkpoint; the point is kept in a file beside it (None: it is not kept).

    Raises:
        ConfigError: the training diverges.
    """
    if not steps:
        return dict(start)
    kept = None if checkpoint is None else checkpoint.with_name(f"point-{fingerprint(lesson.key, steps)}.safetensors")
    if kept is not None and kept.is_file():
        return load_tensors(kept)
    recipe = lesson.recipe
    rate = recipe.learning_rate * min(1.0, steps / max(1, recipe.warmup))
    short = replace(
        recipe,
        steps=steps,
        learning_rate=rate,
        warmup=min(recipe.warmup, steps),
        final=1.0,
        average=0.0,
        evaluate_every=max(1, steps),
    )
    first = replace(lesson, recipe=short, backs_off=False, keeps_last=True)
    point = dict(first(start, {}, 0, checkpoint).weights)
    if not all(bool(weight.isfinite().all()) for weight in point.values()):
        raise ConfigError(
            f"The first {steps} steps of training give no finite weights to rewind to. Choose a lower "
            "heal.learning_rate, or a smaller lottery.rewind."
        )
    if kept is not None:
        save_tensors(point, kept)
    return point


def reinitialised(model: Any, masks: Masks, seed: int) -> dict[str, Tensor]:
    """Draw the survivors anew from the family's own initial distribution; weights that are not pruned stay.

    Args:
        model: gives the weights that stay, and the width of the distribution (`initializer_range`).
        masks: the ticket.
        seed: seed of the draw.
    """
    generator, weights = torch.Generator().manual_seed(seed), take(model)
    width = float(getattr(model.config, "initializer_range", 0.02))
    for name, mask in masks.items():
        weights[name] = width * torch.randn(mask.shape, generator=generator) * mask.cpu()
    return weights
