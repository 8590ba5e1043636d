"""Gradients of a training step without a graph, computed by this process or exchanged with others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minigpt.conditional.swap import penalty_of
from minigpt.healing.answers import Answers
from minigpt.healing.attention import step_attention
from minigpt.healing.data import PaddedBatch
from minigpt.healing.exchange import Exchange
from minigpt.healing.forward import autocast
from minigpt.healing.losses import healing_gradient
from minigpt.healing.recipe import Recipe
from minigpt.healing.stored import StoredTeacher
from minigpt.healing.teacher import Teacher
from minigpt.transformer.logits import logits_at


def gradients_of_parts(
    model: Any,
    teacher: Teacher | StoredTeacher | None,
    batch: PaddedBatch,
    recipe: Recipe,
    exchange: Exchange,
    parts: Sequence[slice],
) -> None:
    """Put the gradients of a batch's loss into the `.grad` of the parameters, one part of its rows after the other.

    The loss is the mean over the tokens of the batch, so a part counts by its share of them. What parameters have in
    `.grad` before is lost. Several processes exchange their gradients; each divides what it reads of the batch so that
    it reads no more at once than one process alone, unless they divide the weights (:mod:`minigpt.healing.sharded`).
    """
    for parameter in exchange.own:
        parameter.grad = None
    if len(parts) == 1 or exchange.group is not None:
        exchanged_gradients(model, teacher, batch, recipe, exchange, len(parts))
        return
    for part in parts:
        rows = batch.rows(part)
        share = float((rows.lengths - 1).sum() / (batch.lengths - 1).sum())
        add_gradients(model, teacher, rows, recipe, share, penalized=share)


def exchanged_gradients(
    model: Any,
    teacher: Teacher | StoredTeacher | None,
    batch: PaddedBatch,
    recipe: Recipe,
    exchange: Exchange,
    portions: int = 1,
) -> None:
    """Put the gradients of a batch's loss into the `.grad` of the parameters that this process owns.

    Args:
        model: the student.
        teacher: the teacher, or None for a loss without distillation.
        batch: the whole batch, of which a process among several reads its part.
        recipe: gives the weight of the distillation, its temperature and the precision.
        exchange: the trained parameters.
        portions: a process among several reads at most this part of the batch's tokens and windows at once.
    """
    if exchange.group is None:
        add_gradients(model, teacher, batch, recipe)
        return
    dtype = exchange.parameters[0].dtype
    exchange.clear(dtype)
    limits = (-(-int(batch.lengths.sum()) // portions), -(-len(batch.ids) // portions)) if portions > 1 else (0, 0)
    for part, share in exchange.parts(batch, *limits):
        for parameter in exchange.filled:
            parameter.grad = None
        add_gradients(model, teacher, part, recipe, exchange.scale(share))
        exchange.add([parameter.grad for parameter in exchange.filled], share, dtype)
    exchange.reduce(dtype)


def add_gradients(
    model: Any,
    teacher: Teacher | StoredTeacher | None,
    batch: PaddedBatch,
    recipe: Recipe,
    scale: float = 1.0,
    *,
    penalized: float = 1.0,
) -> None:
    """Add the gradients of the loss over a batch, times `scale`, to the parameters' `.grad`; see above.

    The penalty of conditional layers counts `penalized` times.
    """
    device = next(model.parameters()).device
    ids, places = batch.ids.to(device), batch.places.to(device)
    with autocast(device, recipe.precision):
        with step_attention(model, ids, recipe.precision):
            logits = logits_at(model, places, input_ids=ids)
        teacher_logits = _answers(teacher, batch, ids, places)
    labels = batch.labels.to(device)
    gradient = healing_gradient(logits, labels, teacher_logits, recipe.distill, recipe.temperature)
    gradient = gradient if scale == 1 else gradient.mul_(scale)
    penalty = penalty_of(model)
    if penalty.requires_grad:
        torch.autograd.backward((logits, penalty), (gradient, torch.full_like(penalty, penalized)))
    else:
        logits.backward(gradient)  # type: ignore[no-untyped-call]


def _answers(
    teacher: Teacher | StoredTeacher | None, batch: PaddedBatch, ids: Tensor, places: Tensor
) -> Tensor | Answers | None:
    """Return what the teacher says at the places of a batch, on the device of its ids."""
    if isinstance(teacher, StoredTeacher):
        return teacher.answers(batch).to(ids.device)
    return None if teacher is None else teacher.logits(ids, places)
