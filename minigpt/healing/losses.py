"""Gradient of the healing loss, distillation and cross-entropy together, with respect to the logits.

With a large vocabulary the logits are the largest tensor of a step, and passes over them take a good part of its time.
The gradient of both losses is a difference of probabilities, and nothing reads the loss itself (dev text decides). So
only the gradient is computed, a few hundred rows at a time, without a second copy of the logits in fp32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minigpt.healing.answers import Answers

# Rows whose gradient is computed at once.
ROWS_PER_PART = 512
# Signature of :func:`row_gradients`, which may be compiled.
Slope = Callable[[Tensor, Tensor, Tensor | Answers | None, float, float], Tensor]


@torch.no_grad()
def healing_gradient(
    logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor | Answers | None,
    distill: float,
    temperature: float,
    *,
    weights: Tensor | None = None,
    slope: Slope | None = None,
) -> Tensor:
    """Return the gradient of `distill` x KL(teacher || student) + (1 - `distill`) x cross-entropy, the mean over rows.

    The loss of a row is in nats. The divergence is softened by `temperature` on both sides and scaled back by its
    square (Hinton et al. 2015, eq. 4). Both sides are normalized over the given columns, so a teacher with a larger
    vocabulary is restricted to the student's tokens first (:class:`minigpt.healing.Teacher`). With p and q the
    probabilities of student and teacher, the gradient of a row is `distill` x temperature x (p - q), softened, plus
    (1 - `distill`) x (p - label).

    Args:
        logits: [n, vocab], of the student.
        labels: int64 [n], the token that follows in the text.
        teacher_logits: [n, vocab], or stored answers of the same temperature, whose divergence is that of
            :mod:`minigpt.healing.answers`; without them the loss is the cross-entropy alone.
        distill: weight of the divergence, 0 to 1.
        temperature: divides the logits of both sides of the divergence, above 0.
        weights: [n], 0 leaves a row out and 1 keeps it; without them all rows count.
        slope: a compiled form of :func:`row_gradients`, where there is one.

    Returns:
        [n, vocab] in the precision of the logits, computed in fp32.
    """
    counted = torch.ones_like(labels, dtype=torch.float32) if weights is None else weights
    shares, share = counted / counted.sum(), distill if teacher_logits is not None else 0.0
    gradient = torch.empty_like(logits)
    for start in range(0, len(logits), ROWS_PER_PART):
        part = slice(start, start + ROWS_PER_PART)
        part_of_teacher = None if teacher_logits is None or not share else teacher_logits[part]
        rows = (slope or row_gradients)(logits[part], labels[part], part_of_teacher, share, temperature)
        torch.mul(rows, shares[part, None], out=gradient[part])
    return gradient


def row_gradients(
    logits: Tensor, labels: Tensor, teacher_logits: Tensor | Answers | None, distill: float, temperature: float
) -> Tensor:
    """Return the gradient of each row's own loss, fp32 [n, vocab]; the arguments are :func:`healing_gradient`'s."""
    slope = _probabilities(logits, 1.0) if distill < 1 or temperature == 1 else torch.zeros((), device=logits.device)
    if teacher_logits is not None and temperature == 1:
        slope = slope.sub_(_taught(teacher_logits, slope, 1.0), alpha=distill)
    elif teacher_logits is not None:
        softened = _probabilities(logits, temperature)
        difference = softened.sub_(_taught(teacher_logits, softened, temperature))
        slope = difference.mul_(distill * temperature).add_(slope, alpha=1 - distill)
    if distill < 1:
        slope.scatter_add_(-1, labels[:, None], torch.full_like(slope[:, :1], distill - 1))
    return slope


def _taught(teacher_logits: Tensor | Answers, student: Tensor, temperature: float) -> Tensor:
    """Return the teacher's probabilities; those that are not stored follow the student's."""
    if isinstance(teacher_logits, Answers):
        return teacher_logits.completed(student)
    return _probabilities(teacher_logits, temperature)


def _probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Return the softmax of the logits over `temperature`, in fp32."""
    if temperature == 1:
        return torch.softmax(logits, dim=-1, dtype=torch.float32)
    return torch.softmax(logits.float() / temperature, dim=-1)
