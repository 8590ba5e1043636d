"""The loss of healing: distillation and cross-entropy in one pass over the logits, gradient included.

A vocabulary of 33,000 tokens makes the logits of a step the largest thing in memory. The gradient of both losses is a
difference of probabilities, so it is computed with the loss, a few hundred rows at a time, and only it is kept: no
second copy of the logits in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 512


def healing_loss(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor | None,
    distill: float,
    temperature: float,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """`distill` x KL(teacher || student) + (1 - `distill`) x cross-entropy, in nats a row, softmax in fp32.

    The divergence is softened by `temperature` on both sides and scaled back by its square (Hinton et al. 2015,
    eq. 4). Both sides are normalized over the columns given, so a teacher with a larger vocabulary is restricted to
    the student's tokens first (:class:`minigpt.heal.Teacher`).

    Args:
        logits: [n, vocab].
        labels: int64 [n].
        teacher_logits: [n, vocab]; without them the loss is the cross-entropy.
        distill: weight of the divergence.
        temperature: above 0.
        weights: [n], leave rows out (0) or in (1); without them all count alike.
    """
    counted = torch.ones_like(labels, dtype=torch.float32) if weights is None else weights
    taught = teacher_logits if distill else None
    loss: Tensor = _Loss.apply(  # type: ignore[no-untyped-call]
        logits, labels, taught, distill if taught is not None else 0.0, temperature, counted / counted.sum()
    )
    return loss


class _Loss(torch.autograd.Function):
    """The loss, and its gradient in the precision of the logits, from one pass."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        taught: Tensor | None,
        distill: float,
        temperature: float,
        shares: Tensor,
    ) -> Tensor:
        gradient = torch.empty_like(logits)
        total = torch.zeros((), device=logits.device)
        for start in range(0, len(logits), ROWS):
            part = slice(start, start + ROWS)
            told = None if taught is None else taught[part]
            losses, slope = _rows(logits[part], labels[part], told, distill, temperature)
            total = total + losses @ shares[part]
            torch.mul(slope, shares[part, None], out=slope)
            gradient[part] = slope
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0].to(gradient.dtype), None, None, None, None, None


def _rows(
    logits: Tensor, labels: Tensor, taught: Tensor | None, distill: float, temperature: float
) -> tuple[Tensor, Tensor]:
    """Loss of each row [n] and its gradient with respect to the row's logits [n, vocab], fp32."""
    losses, slope = torch.zeros((), device=logits.device), torch.zeros((), device=logits.device)
    if taught is not None:
        told, said = _log_softmax(taught, temperature), _log_softmax(logits, temperature)
        odds = told.exp()
        losses = torch.linalg.vecdot(odds, told.sub_(said)).mul_(distill * temperature**2)
        slope = said.exp_().sub_(odds).mul_(distill * temperature)
    if distill < 1:
        own = _log_softmax(logits, 1.0)
        losses = losses + own.gather(-1, labels[:, None]).squeeze(-1).mul_(distill - 1)
        own.exp_().scatter_add_(-1, labels[:, None], torch.full_like(own[:, :1], -1.0)).mul_(1 - distill)
        slope = own.add_(slope)
    return losses, slope


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    if temperature == 1:
        return torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    return torch.log_softmax(logits.float() / temperature, dim=-1)
