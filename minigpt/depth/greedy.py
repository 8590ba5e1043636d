"""Greedy removal by measured loss: SLEB on whole layers, BlockPruner on attention and FFN halves.

At every step each unit that is left is skipped on trial, and the one whose absence costs least is gone for good
(Song et al. 2024, SLEB, algorithm 1; Zhong et al. 2024, BlockPruner, algorithm 1). Costs one forward pass over the
search text for each trial: about removed x layers of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from minigpt.batches import Batch
from minigpt.depth.loss import Half, halves_skipped, layers_skipped, next_token_loss
from minigpt.errors import PlanError
from minigpt.progress import SILENT, Reporter
from minigpt.types import Ints

Unit = TypeVar("Unit", bound=Hashable)
ENDS = (0, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal(Generic[Unit]):
    """One step: what went, and the loss (nats a token) without it and all that went before."""

    unit: Unit
    loss: float


def greedy(
    units: Sequence[Unit],
    loss: Callable[[tuple[Unit, ...]], float],
    enough: Callable[[tuple[Unit, ...]], bool],
    *,
    reporter: Reporter = SILENT,
) -> tuple[Removal[Unit], ...]:
    """Remove the cheapest unit until `enough(removed)`, in the order of removal.

    Args:
        units: what may go; ties go to the first.
        loss: of the model without the units given.
        enough: whether these removals reach the size asked for.
        reporter: told about every round.

    Raises:
        PlanError: all units are gone and it still is not enough.
    """
    steps: list[Removal[Unit]] = []
    gone: tuple[Unit, ...] = ()
    while not enough(gone):
        left = [unit for unit in units if unit not in gone]
        if not left:
            raise PlanError(f"All {len(units)} parts that may go are removed, and the target is smaller; ask for more.")
        trials = reporter.track(left, title=f"Search, part {len(gone) + 1}", total=len(left))
        losses = [(_finite(loss((*gone, unit))), place) for place, unit in enumerate(trials)]
        best, place = min(losses)
        steps.append(Removal(unit=left[place], loss=best))
        gone = (*gone, left[place])
    return tuple(steps)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def greedy_layers(
    model: Any, batches: Sequence[Batch], removed: int, *, protect: Ints = ENDS, reporter: Reporter = SILENT
) -> tuple[Removal[int], ...]:
    """SLEB: whole layers in the order in which they go; layers in `protect` (negative: from the end) stay.

    The model is left as it was.
    """
    count = int(model.config.num_hidden_layers)
    kept = {layer % count for layer in protect}

    def loss(gone: Ints) -> float:
        with layers_skipped(model, gone):
            return next_token_loss(model, batches)

    free = [layer for layer in range(count) if layer not in kept]
    return greedy(free, loss, lambda gone: len(gone) >= removed, reporter=reporter)


def greedy_halves(
    model: Any,
    batches: Sequence[Batch],
    enough: Callable[[tuple[Half, ...]], bool],
    *,
    protect: Ints = ENDS,
    reporter: Reporter = SILENT,
) -> tuple[Removal[Half], ...]:
    """BlockPruner: attentions and FFNs in the order in which they go. The model is left as it was."""
    count = int(model.config.num_hidden_layers)
    kept = {layer % count for layer in protect}

    def loss(gone: tuple[Half, ...]) -> float:
        with halves_skipped(model, gone):
            return next_token_loss(model, batches)

    free: list[Half] = []
    for layer in range(count):
        if layer not in kept:
            free += [(layer, "attention"), (layer, "ffn")]
    return greedy(free, loss, enough, reporter=reporter)
