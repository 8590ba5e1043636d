"""Choice of the layers that become conditional: those that cost the least loss for each microsecond that they save."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """Cost of one conditional layer, alone in the dense model: what it loses, and how long both forms take.

    Attributes:
        layer: number of the layer.
        loss: bits per byte on dev text, minus those of the dense model.
        dense_us: microseconds of the dense layer for one token.
        conditional_us: microseconds of the conditional layer for one token.
    """

    layer: int
    loss: float
    dense_us: float
    conditional_us: float

    @property
    def saved(self) -> float:
        """Microseconds that the layer saves for one token."""
        return self.dense_us - self.conditional_us


def ranked(costs: Sequence[LayerCost]) -> tuple[int, ...]:
    """Return the layers that save time, by the loss for each microsecond, the cheapest first.

    Layers whose loss falls come before all others, those that save most first.
    """
    faster = [cost for cost in costs if cost.saved > 0]
    order = sorted(faster, key=lambda cost: (cost.loss > 0, cost.loss / cost.saved if cost.loss > 0 else -cost.saved))
    return tuple(cost.layer for cost in order)


def longest_within(order: Sequence[int], limit: float, loss_of: Callable[[Sequence[int]], float]) -> tuple[int, ...]:
    """Return as many layers from the front as a limit allows, by bisection: the loss is taken to grow with them.

    The first layer alone is returned even where it is beyond the limit, because a limit of almost nothing would else
    turn the question into an empty answer.

    Args:
        order: layers, the cheapest first.
        limit: what the loss may be at most.
        loss_of: measures the loss of layers together.
    """
    low, high = min(1, len(order)), len(order)
    while low < high:
        middle = (low + high + 1) // 2
        if loss_of(order[:middle]) <= limit:
            low = middle
        else:
            high = middle - 1
    return tuple(order[:low])


@torch.no_grad()
def times_of(modules: Sequence[Any], x: Tensor, *, rounds: int = 25) -> tuple[float, ...]:
    """Return the microseconds that modules take for tokens x, by turns: the least of several rounds.

    On a busy machine the median can be a time slice of another process, which would decide about a layer.

    Args:
        modules: what is timed, in evaluation mode.
        x: tokens [count, H]; each call takes one of them as [1, 1, H], as decoding does.
        rounds: number of calls of each module that count; two calls before them do not.
    """
    samples: list[list[float]] = [[] for _ in modules]
    for turn in range(rounds + 2):
        token = x[turn % len(x)].view(1, 1, -1)
        for module, seconds in zip(modules, samples, strict=True):
            _wait(x)
            started = time.perf_counter()
            module(token)
            _wait(x)
            seconds.append(time.perf_counter() - started)
    return tuple(1e6 * min(seconds[2:]) for seconds in samples)


def _wait(x: Tensor) -> None:
    """Wait until an accelerator has done what it was given."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
