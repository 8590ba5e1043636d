"""What healing learns from: distillation and cross-entropy, as one gradient with respect to the logits.

A vocabulary of 33,000 tokens makes the logits of a step the largest thing in memory, and passes over them a good part
of its time. The gradient of both losses is a difference of probabilities, and nothing reads the loss itself (dev text
decides), so the gradient alone is computed, a few hundred rows at a time: no second copy of the logits in fp32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROWS = 512
Slope = Callable[[Tensor, Tensor, Tensor | None, float, float], Tensor]
"""What :func:`row_gradients` does, compiled or not."""


@torch.no_grad()
def healing_gradient(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor | None,
    distill: float,
    temperature: float,
    *,
    weights: Tensor | None = None,
    slope: Slope | None = None,
) -> Tensor:
    """The gradient of `distill` x KL(teacher || student) + (1 - `distill`) x cross-entropy, nats a row, mean of rows.

    The divergence is softened by `temperature` on both sides and scaled back by its square (Hinton et al. 2015,
    eq. 4). Both sides are normalized over the columns given, so a teacher with a larger vocabulary is restricted to
    the student's tokens first (:class:`minigpt.healing.Teacher`). With p and q the probabilities of student and teacher
    the gradient of a row is `distill` x temperature x (p - q), softened, plus (1 - `distill`) x (p - label).

    Args:
        logits: [n, vocab].
        labels: int64 [n].
        teacher_logits: [n, vocab]; without them the loss is the cross-entropy.
        distill: weight of the divergence.
        temperature: above 0.
        weights: [n], leave rows out (0) or in (1); without them all count alike.
        slope: a compiled form of :func:`row_gradients`.

    Returns:
        [n, vocab] in the precision of the logits, computed in fp32.
    """
    counted = torch.ones_like(labels, dtype=torch.float32) if weights is None else weights
    shares, share = counted / counted.sum(), distill if teacher_logits is not None else 0.0
    gradient = torch.empty_like(logits)
    for start in range(0, len(logits), ROWS):
        part = slice(start, start + ROWS)
        told = None if teacher_logits is None or not share else teacher_logits[part]
        rows = (slope or row_gradients)(logits[part], labels[part], told, share, temperature)
        torch.mul(rows, shares[part, None], out=gradient[part])
    return gradient


def row_gradients(logits: Tensor, labels: Tensor, taught: Tensor | None, distill: float, temperature: float) -> Tensor:
    """The gradient [n, vocab] of each row's own loss, fp32; arguments as for :func:`healing_gradient`."""
    slope = _probabilities(logits, 1.0) if distill < 1 or temperature == 1 else torch.zeros((), device=logits.device)
    if taught is not None and temperature == 1:
        slope = slope.sub_(_probabilities(taught, 1.0), alpha=distill)
    elif taught is not None:
        apart = _probabilities(logits, temperature).sub_(_probabilities(taught, temperature))
        slope = apart.mul_(distill * temperature).add_(slope, alpha=1 - distill)
    if distill < 1:
        slope.scatter_add_(-1, labels[:, None], torch.full_like(slope[:, :1], distill - 1))
    return slope


def _probabilities(logits: Tensor, temperature: float) -> Tensor:
    if temperature == 1:
        return torch.softmax(logits, dim=-1, dtype=torch.float32)
    return torch.softmax(logits.float() / temperature, dim=-1)
