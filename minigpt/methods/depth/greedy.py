"""Greedy removal by measured loss: SLEB on whole layers, BlockPruner on attentions and FFNs.

At every step each remaining part is skipped on trial, and the one whose absence costs least is removed for good (Song
et al. 2024, SLEB, algorithm 1; Zhong et al. 2024, BlockPruner, algorithm 1). A step costs about half a forward pass
over the search text for each remaining part.
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
# The first and the last layer, which searches leave alone by default.
ENDS = (0, -1)


def greedy(
    parts: Sequence[Part],
    losses: Callable[[Parts, Sequence[Part]], Sequence[float]],
    enough: Callable[[Parts], bool],
    *,
    known: Sequence[Removal] = (),
    reporter: Reporter = SILENT,
) -> tuple[Removal, ...]:
    """Remove the cheapest part again and again, until enough is removed.

    Args:
        parts: parts that may be removed; of equally cheap ones the first is removed.
        losses: `(gone, trials) -> losses`, the loss of the model without `gone` and without each of the trials.
        enough: whether these removals reach the target size.
        known: the first steps of the same search, if an earlier run made them: the order does not depend on the size.
        reporter: told about every step.

    Returns:
        The removals, in their order.

    Raises:
        PlanError: all parts are removed, and it is still not enough.
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
        remaining = [part for part in parts if part not in gone]
        costs = [loss if math.isfinite(loss) else math.inf for loss in losses(gone, remaining)]
        best = min(range(len(remaining)), key=costs.__getitem__)
        steps.append(Removal(part=remaining[best], loss=costs[best]))
        gone = (*gone, remaining[best])
    if not enough(gone):
        raise PlanError(
            f"All {len(parts)} parts that may be removed are removed, and the target is smaller; ask for a larger one."
        )
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
    """Remove whole layers by measured loss (SLEB).

    Args:
        model: the dense model, which stays as it is.
        batches: the search text.
        removed: layers to remove.
        protect: layers that stay (negative: from the end).
        known: the first steps, if an earlier run made them.
        reporter: told about every step.

    Returns:
        The removals in their order, each with its loss.
    """
    free: list[Part] = [(layer, "layer") for layer in _removable_layers(model, protect)]
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
    """Remove attentions and FFNs, one by one, by measured loss (BlockPruner).

    Args:
        model: the dense model, which stays as it is.
        batches: the search text.
        enough: whether these removals reach the target size.
        protect: layers that stay whole (negative: from the end).
        known: the first steps, if an earlier run made them.
        reporter: told about every step.
    """
    free: list[Part] = []
    for layer in _removable_layers(model, protect):
        free += [(layer, "attention"), (layer, "ffn")]
    return greedy(
        free,
        lambda gone, trials: trial_losses(model, batches, gone, trials),
        enough,
        known=known,
        reporter=reporter,
    )


def _removable_layers(model: Any, protect: Ints) -> list[int]:
    """List the layers that are not protected."""
    count = int(model.config.num_hidden_layers)
    kept = {layer % count for layer in protect}
    return [layer for layer in range(count) if layer not in kept]
