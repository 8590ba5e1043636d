"""Signs that a learning rate is too high for a model."""

from __future__ import annotations

from collections.abc import Sequence

# A dev loss above this multiple of the first one is such a sign.
MAX_RISE = 1.02


def has_overshot(losses: Sequence[float], best_step: int, *, diverged: bool, last: bool) -> bool:
    """Say whether the learning rate did harm, or the whole run gained nothing.

    Args:
        losses: dev losses so far, that of the start first.
        best_step: step of the weights that are best so far.
        diverged: the loss is no longer a number.
        last: the run is over.
    """
    first, *later = losses
    if any(loss < first for loss in later):
        return last and best_step == 0  # better on dev text, but never within the bound
    return diverged or last or later[-1] > MAX_RISE * first
