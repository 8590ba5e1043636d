"""Layer collapse (Yang et al. 2024, LaCo): fold the layers behind a layer into it instead of dropping them.

theta_l' = theta_l + sum_k (theta_(l+k) - theta_l): the host takes up what its followers do differently. A fold is
kept while the output for a little calibration text (the paper reads ten sentences) stays similar to the dense model's.

How many layers a fold combines and how far apart folds are is chosen for each model in the paper. Two and one are what
the default parent wants: 3 of its 30 layers folded leave an output cosine of 0.85, with four and two of 0.19. A fold
of two is a special case: the sum leaves the follower's projections behind the host's norms, so that nothing is mixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from minigpt.errors import CorpusError, PlanError
from minigpt.methods.depth.loss import parts_skipped
from minigpt.progress import SILENT, Reporter
from minigpt.pruning.slicing import fold_layer, projections
from minigpt.transformer.arch import decoder_layers
from minigpt.transformer.batches import Batch, run_decoder
from minigpt.types import Ints

COMBINED = 2
INTERVAL = 1
LOWEST = 1
BISECTIONS = 5
TEXT_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Collapse:
    """Which layers are left and what was folded into them.

    `merges` lists the folds in order, each the host's index and those of the layers folded into it (parent indices;
    a folded layer may have been a host before). `similarity` is the mean output cosine to the dense model.
    """

    layers: Ints
    merges: tuple[Ints, ...]
    threshold: float
    similarity: float


def walk(
    count: int,
    similarity: Any,
    threshold: float,
    *,
    removed: int | None = None,
    combined: int = COMBINED,
    interval: int = INTERVAL,
    lowest: int = LOWEST,
) -> tuple[Ints, ...]:
    """LaCo's algorithm 1 from the top of the stack downward: which folds are kept.

    Args:
        count: layers of the parent.
        similarity: `(merges) -> float`, the output similarity after these folds.
        threshold: a fold is kept if the similarity stays above it.
        removed: stop at exactly this many removed layers (None: when the walk is done); the last fold may be smaller.
        combined: layers that one fold makes into one (C).
        interval: how far below a fold the next one starts (I).
        lowest: the lowest layer that may be a host (L).

    Returns:
        The folds, each the parent indices (host, folded, ...).
    """
    stack, merges = list(range(count)), list[Ints]()
    place = count - combined if count > combined else lowest
    while place >= lowest:
        room = combined - 1 if removed is None else min(combined - 1, removed - (count - len(stack)))
        followers = stack[place + 1 : place + 1 + room]
        if removed is not None and room == 0:
            break
        trial = (stack[place], *followers)
        if followers and similarity((*merges, trial)) > threshold:
            merges.append(trial)
            stack = [layer for layer in stack if layer not in followers]
            place = min(place - interval, len(stack) - combined)
        else:
            place -= 1
    return tuple(merges)


def folded(merges: Sequence[Ints]) -> Ints:
    """The layers that folds take away, ascending."""
    return tuple(sorted(layer for merge in merges for layer in merge[1:]))


def search(
    model: Any,
    batches: Sequence[Batch],
    removed: int,
    *,
    combined: int = COMBINED,
    interval: int = INTERVAL,
    lowest: int = LOWEST,
    reporter: Reporter = SILENT,
) -> Collapse:
    """The folds at the highest threshold (by bisection) at which exactly `removed` layers go; the model is left as is.

    Raises:
        PlanError: not even without a threshold can so many layers be folded.
        CorpusError: the batches hold no text.
    """
    count = int(model.config.num_hidden_layers)
    trials = _Trials(model=model, batches=batches, dense=outputs(model, batches))

    def attempt(threshold: float) -> tuple[Ints, ...] | None:
        found = walk(count, trials, threshold, removed=removed, combined=combined, interval=interval, lowest=lowest)
        return found if len(folded(found)) == removed else None

    low, high = 0.0, 1.0
    best = attempt(low)
    if best is None:
        low, high = -1.0, 0.0
        best = attempt(low)
    if best is None:
        raise PlanError(f"laco cannot fold {removed} of {count} layers; ask for a larger target or another method.")
    for _ in reporter.track(range(BISECTIONS), title="Search for the threshold", total=BISECTIONS):
        middle = (low + high) / 2
        found = attempt(middle)
        if found is None:
            high = middle
        else:
            best, low = found, middle
    gone = frozenset(folded(best))
    left = tuple(layer for layer in range(count) if layer not in gone)
    return Collapse(layers=left, merges=best, threshold=low, similarity=trials(best))


@dataclass(slots=True, kw_only=True)
class _Trials:
    """Output similarity after folds, each measured once."""

    model: Any
    batches: Sequence[Batch]
    dense: list[Tensor]
    known: dict[tuple[Ints, ...], float] = field(default_factory=dict)

    def __call__(self, merges: tuple[Ints, ...]) -> float:
        if merges not in self.known:
            with collapsed(self.model, merges):
                self.known[merges] = mean_cosine(self.dense, outputs(self.model, self.batches))
        return self.known[merges]


@contextmanager
def collapsed(model: Any, merges: Sequence[Ints]) -> Iterator[None]:
    """Inside the block the dense model computes what the collapsed one would; its weights are put back afterwards."""
    layers = decoder_layers(model)
    saved: list[tuple[nn.Parameter, Tensor]] = []
    for host in dict.fromkeys(merge[0] for merge in merges):
        saved += [(parameter, parameter.detach().clone()) for parameter in projections(layers[host])]
    try:
        with torch.no_grad():
            for merge in merges:
                fold_layer(model, merge)
        with parts_skipped(model, [(layer, "layer") for layer in folded(merges)]):
            yield
    finally:
        with torch.no_grad():
            for parameter, value in saved:
                parameter.copy_(value)


@torch.no_grad()
def outputs(model: Any, batches: Sequence[Batch]) -> list[Tensor]:
    """The decoder's output for every piece of text by itself: fp32 [tokens, hidden] each.

    Raises:
        CorpusError: the batches hold no text.
    """
    pieces: list[Tensor] = []
    for batch in batches:
        states = run_decoder(model, batch).float()
        for row, segments in zip(states, batch.segment_ids, strict=True):
            for segment in segments.unique().tolist():
                if segment:
                    pieces.append(row[(segments == segment).to(row.device)])
    if not pieces:
        raise CorpusError("The calibration batches hold no text; give the domain more documents.")
    return pieces


def mean_cosine(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Mean over pieces of the cosine between their outputs, each flattened to one vector."""
    cosines = [
        float(functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) for a, b in zip(before, after, strict=True)
    ]
    return sum(cosines) / len(cosines)
