"""Choice of layers by hidden states alone: Block Influence (ShortGPT), angular distance (Gromov et al.), position.

Indices are those of `minigpt.transformer.stats`: state l enters layer l, and state L leaves the last layer before the
final norm, so that a block at the end of the stack is measured on the same scale as all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minigpt.errors import PlanError
from minigpt.types import Ints

if TYPE_CHECKING:
    from torch import Tensor


def least_influential(influence: Sequence[float], removed: int, *, protect: Ints = ()) -> Ints:
    """Choose the layers with the lowest Block Influence (ShortGPT, eq. 1), ascending; they need not be neighbors.

    Args:
        influence: 1 - E[cos(layer input, layer output)] over all token positions, one value a layer.
        removed: number of layers to remove.
        protect: layers that stay (negative: from the end); the paper protects none.

    Raises:
        PlanError: fewer layers may be removed.
    """
    kept = _protected(len(influence), protect)
    free = sorted((value, layer) for layer, value in enumerate(influence) if layer not in kept)
    _check(removed, len(free))
    return tuple(sorted(layer for _, layer in free[:removed]))


def distances(angular: Tensor, block: int) -> list[float]:
    """Read d(x^l, x^(l+block)) for every start l = 0 .. L - block, as fractions of pi.

    Args:
        angular: mean angular distance between states at the last token of each sequence, [L+1, L+1].
        block: number of layers in the block, 1 .. L.
    """
    return [float(value) for value in angular.diagonal(block)]


def most_similar_block(angular: Tensor, removed: int) -> Ints:
    """Choose the block of `removed` neighboring layers whose input and output are closest (Gromov et al., steps 1-3).

    Of equally close blocks the shallowest is chosen.

    Raises:
        PlanError: no layer would be left.
    """
    _check(removed, len(angular) - 2)
    if removed == 0:
        return ()
    candidates = distances(angular, removed)
    start = candidates.index(min(candidates))
    return tuple(range(start, start + removed))


def deepest_block(layers: int, removed: int) -> Ints:
    """Choose the last `removed` layers in front of the final one, which stays (Gromov et al., the simple strategy).

    Raises:
        PlanError: no layer would be left.
    """
    _check(removed, layers - 1)
    return tuple(range(layers - 1 - removed, layers - 1))


def complement(layers: int, removed: Ints) -> Ints:
    """List the layers that are left, ascending."""
    gone = frozenset(removed)
    return tuple(layer for layer in range(layers) if layer not in gone)


def _protected(layers: int, protect: Ints) -> frozenset[int]:
    """Resolve negative indices."""
    return frozenset(layer % layers for layer in protect)


def _check(removed: int, most: int) -> None:
    """Refuse to remove more layers than `most`."""
    if not 0 <= removed <= most:
        raise PlanError(f"{removed} layers cannot be removed here, at most {most}; ask for a larger target.")
