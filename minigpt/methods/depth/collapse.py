"""Layer collapse (Yang et al. 2024, LaCo): fold the layers behind a layer into it instead of dropping them.

theta_l' = theta_l + sum_k (theta_(l+k) - theta_l): the host adds the differences between its followers and itself. A
fold is kept while the output for a little calibration text (the paper reads ten sentences) stays similar to the dense
model's.

The paper chooses for each model how many layers a fold combines and how far apart folds are. The defaults here, two and
one, suit the default parent. A fold of two is a special case: the host gets exactly its follower's projections, behind
its own norms, so nothing is mixed.
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
from minigpt.transformer.fused import separate_projections
from minigpt.types import Ints

# Layers that one fold makes into one (C in the paper).
COMBINED = 2
# Layers from one fold down to the next (I).
INTERVAL = 1
# The lowest layer that may be a host (L).
LOWEST = 1
# Steps of the search for the threshold.
BISECTIONS = 5
# Tokens of calibration text that similarity is measured on.
TEXT_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Collapse:
    """Result of a search for folds: the layers that are left, and the layers that were folded into them.

    Attributes:
        layers: parent indices of the layers that are left.
        merges: the folds in order, as parent indices (host, folded, ...); a folded layer may have been a host before.
        threshold: the similarity that every fold had to stay above.
        similarity: mean cosine between the outputs of the collapsed and the dense model.
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
    """Run LaCo's algorithm 1, from the top of the stack downward, and return the folds that are kept.

    Args:
        count: layers of the parent.
        similarity: `(merges) -> float`, the similarity of the output after these folds.
        threshold: a fold is kept if the similarity stays above it.
        removed: stop at exactly this many removed layers (None: at the lowest layer); the last fold may be smaller.
        combined: layers that one fold makes into one (C).
        interval: how far below a fold the next one starts (I).
        lowest: the lowest layer that may be a host (L).

    Returns:
        The folds, each as parent indices (host, folded, ...).
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
    """List the layers that folds take away, ascending."""
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
    """Find, by bisection, the folds at the highest threshold at which exactly `removed` layers are folded away.

    Args:
        model: the dense model, which stays as it is.
        batches: a little calibration text.
        removed: layers to remove.
        combined: see :func:`walk`.
        interval: see :func:`walk`.
        lowest: see :func:`walk`.
        reporter: told about progress.

    Raises:
        PlanError: so many layers cannot be folded even without a threshold.
        CorpusError: the batches hold no text.
    """
    count = int(model.config.num_hidden_layers)
    trials = _Trials(model=model, batches=batches, dense=outputs(model, batches))

    def attempt(threshold: float) -> tuple[Ints, ...] | None:
        merges = walk(count, trials, threshold, removed=removed, combined=combined, interval=interval, lowest=lowest)
        return merges if len(folded(merges)) == removed else None

    low, high = 0.0, 1.0
    best = attempt(low)
    if best is None:
        low, high = -1.0, 0.0
        best = attempt(low)
    if best is None:
        raise PlanError(f"laco cannot fold {removed} of {count} layers; ask for a larger target or another method.")
    for _ in reporter.track(range(BISECTIONS), title="Search for the threshold", total=BISECTIONS):
        middle = (low + high) / 2
        merges = attempt(middle)
        if merges is None:
            high = middle
        else:
            best, low = merges, middle
    gone = frozenset(folded(best))
    left = tuple(layer for layer in range(count) if layer not in gone)
    return Collapse(layers=left, merges=best, threshold=low, similarity=trials(best))


@dataclass(slots=True, kw_only=True)
class _Trials:
    """Similarity of the output after folds; every list of folds is measured once."""

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
    """Collapse the dense model inside the block; its weights are restored afterwards."""
    with separate_projections(model), _folded_in_place(model, merges):
        yield


@contextmanager
def _folded_in_place(model: Any, merges: Sequence[Ints]) -> Iterator[None]:
    """Collapse a model whose projections are all layers of their own, and restore the weights afterwards."""
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
    """Compute the decoder's output for every piece of text separately: fp32 tensors [tokens, hidden].

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
    """Average the cosine between the outputs of two models over pieces of text, each flattened to one vector."""
    cosines = [
        float(functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) for a, b in zip(before, after, strict=True)
    ]
    return sum(cosines) / len(cosines)
