"""Layers chosen from hidden states alone: Block Influence (ShortGPT), angular distance (Gromov et al.), position.

Indices are those of `minigpt.transformer.stats`: state l enters layer l, and state L leaves the last layer before the
final norm, so that a block that ends the stack is measured on the same scale as every other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minigpt.errors import PlanError
from minigpt.types import Ints

if TYPE_CHECKING:
    from torch import Tensor


def least_influential(influence: Sequence[float], removed: int, *, protect: Ints = ()) -> Ints:
    """The `removed` layers with the lowest Block Influence, ascending; they need not be neighbors (ShortGPT, eq. 1).

    Args:
        influence: 1 - E[cos(layer input, layer output)] over all token positions, one value a layer.
        removed: how many layers to take away.
        protect: layers that stay (negative: from the end); the paper protects none.

    Raises:
        PlanError: fewer layers are free to go.
    """
    kept = _protected(len(influence), protect)
    free = sorted((value, layer) for layer, value in enumerate(influence) if layer not in kept)
    _check(removed, len(free))
    return tuple(sorted(layer for _, layer in free[:removed]))


def distances(angular: Tensor, block: int) -> list[float]:
    """d(x^l, x^(l+block)) for every start l = 0 .. L - block, as fractions of pi.

    Args:
        angular: [L+1, L+1] mean angular distance at the last token of each sequence.
        block: layers in the block, 1 .. L.
    """
    return [float(value) for value in angular.diagonal(block)]


def most_similar_block(angular: Tensor, removed: int) -> Ints:
    """The block of `removed` neighboring layers whose input and output are closest (Gromov et al., steps 1-3).

    Ties keep the deeper layers: the shallower block goes.

    Raises:
        PlanError: there are not more than `removed` layers.
    """
    _check(removed, len(angular) - 2)
    if removed == 0:
        return ()
    found = distances(angular, removed)
    start = found.index(min(found))
    return tuple(range(start, start + removed))


def deepest_block(layers: int, removed: int) -> Ints:
    """The last `removed` layers in front of the final one, which stays (Gromov et al., the simple strategy).

    Raises:
        PlanError: there are not more than `removed` layers.
    """
    _check(removed, layers - 1)
    return tuple(range(layers - 1 - removed, layers - 1))


def complement(layers: int, removed: Ints) -> Ints:
    """The layers that are left, ascending."""
    gone = frozenset(removed)
    return tuple(layer for layer in range(layers) if layer not in gone)


def _protected(layers: int, protect: Ints) -> frozenset[int]:
    return frozenset(layer % layers for layer in protect)


def _check(removed: int, most: int) -> None:
    if not 0 <= removed <= most:
        raise PlanError(f"{removed} layers cannot be removed here, at most {most}; ask for a larger target.")
