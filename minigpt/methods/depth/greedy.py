"""Greedy removal by measured loss: SLEB on whole layers, BlockPruner on attentions and FFNs.

At every step each part that is left is skipped on trial, and the one whose absence costs least is gone for good
(Song et al. 2024, SLEB, algorithm 1; Zhong et al. 2024, BlockPruner, algorithm 1). A step costs about half a forward
pass over the search text for each part that is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from minigpt.errors import PlanError
from minigpt.methods.depth.loss import trial_losses
from minigpt.methods.searches import Part, Removal
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.batches import Batch
from minigpt.types import Ints

Parts = tuple[Part, ...]
ENDS = (0, -1)


def greedy(
    parts: Sequence[Part],
    losses: Callable[[Parts, Sequence[Part]], Sequence[float]],
    enough: Callable[[Parts], bool],
    *,
    known: Sequence[Removal] = (),
    reporter: Reporter = SILENT,
) -> tuple[Removal, ...]:
    """Remove the cheapest part until `enough(removed)`, in the order of removal.

    Args:
        parts: what may go; ties go to the first.
        losses: (gone, trials) to the loss of the model without `gone` and each of the trials.
        enough: whether these removals reach the size asked for.
        known: the first steps of the same search, if it went some way before: the order does not depend on the size.
        reporter: told about every step.

    Raises:
        PlanError: all parts are gone and it still is not enough.
    """
    steps: list[Removal] = []
    gone: Parts = ()
    for _ in reporter.track(range(len(parts)), title="Search by loss"):
        if enough(gone):
            break
        if len(steps) < len(known):
            steps.append(known[len(steps)])
            gone = (*gone, steps[-1].part)
            continue
        left = [part for part in parts if part not in gone]
        ranked = [loss if math.isfinite(loss) else math.inf for loss in losses(gone, left)]
        best = min(range(len(left)), key=ranked.__getitem__)
        steps.append(Removal(part=left[best], loss=ranked[best]))
        gone = (*gone, left[best])
    if not enough(gone):
        raise PlanError(f"All {len(parts)} parts that may go are removed, and the target is smaller; ask for more.")
    return tuple(steps)


def greedy_layers(
    model: Any,
    batches: Sequence[Batch],
    removed: int,
    *,
    protect: Ints = ENDS,
    known: Sequence[Removal] = (),
    reporter: Reporter = SILENT,
) -> tuple[Removal, ...]:
    """SLEB: whole layers in the order in which they go; layers in `protect` (negative: from the end) stay.

    `known` are the first steps, where they are known from before. The model is left as it was.
    """
    free: list[Part] = [(layer, "layer") for layer in _free(model, protect)]
    return greedy(
        free,
        lambda gone, trials: trial_losses(model, batches, gone, trials),
        lambda gone: len(gone) >= removed,
        known=known,
        reporter=reporter,
    )


def greedy_halves(
    model: Any,
    batches: Sequence[Batch],
    enough: Callable[[Parts], bool],
    *,
    protect: Ints = ENDS,
    known: Sequence[Removal] = (),
    reporter: Reporter = SILENT,
) -> tuple[Removal, ...]:
    """BlockPruner: attentions and FFNs in the order in which they go, `known` first. The model is left as it was."""
    free: list[Part] = []
    for layer in _free(model, protect):
        free += [(layer, "attention"), (layer, "ffn")]
    return greedy(
        free,
        lambda gone, trials: trial_losses(model, batches, gone, trials),
        enough,
        known=known,
        reporter=reporter,
    )


def _free(model: Any, protect: Ints) -> list[int]:
    count = int(model.config.num_hidden_layers)
    kept = {layer % count for layer in protect}
    return [layer for layer in range(count) if layer not in kept]
