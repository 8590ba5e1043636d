"""Near duplicates of a corpus in parts: which pairs to compare, and which passages give way.

One process that has all passages in memory goes through them by priority and keeps each that is no near duplicate of
one that was kept (`minigpt.corpus.dedup.drop_near_duplicates`). The rounds here come to the same end. A round compares
every passage with some of the earlier ones in each of its bands, and decides all passages that this suffices for; the
next round compares those that are left with further ones. Hardly any corpus needs a second round: copies of a text
give way to its first passage, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from minigpt.curation.ranged import PAIR, Table, contains

# Members of a band that the first round compares others with, and the most that a later round does.
FIRST, MOST = 16, 256
# Bits of a priority that hold the draw; those above hold the rank of the split.
DRAW_BITS = 62
# Rank below which a passage is kept even beside a near duplicate.
PROTECTED_BELOW = 2


def window(number: int) -> tuple[int, int]:
    """Return the first place in a band that a round compares others with, and the one after the last."""
    low, size = 0, FIRST
    for _ in range(number):
        low, size = low + size, min(MOST, 4 * size)
    return low, low + size


def priority_of(rank: int, drawn: int) -> int:
    """Return the rank of a split and a draw as one number of 64 bits."""
    return (rank << DRAW_BITS) | (drawn >> (64 - DRAW_BITS))


def is_free(priorities: Table) -> NDArray[np.bool_]:
    """Return for each priority whether its passage gives way to near duplicates."""
    return np.asarray(priorities >> np.uint64(DRAW_BITS) >= PROTECTED_BELOW)


def candidates(entries: Table, gone: Table, wanted: Table | None, number: int) -> tuple[list[Table], Table]:
    """Return the pairs that a round compares, and the passages that it leaves open.

    Args:
        entries: Entries of bands: all of each band that has any.
        gone: Places of passages that gave way in an earlier round, ascending.
        wanted: Places of passages to compare, ascending; None for all.
        number: Number of the round.

    Returns:
        The pairs, perhaps several times, and the passages with further earlier ones in a band, as pairs with
        themselves.
    """
    entries = entries[np.lexsort((entries["place"], entries["priority"], entries["hash"]))]
    first = np.concatenate([[True], entries["hash"][1:] != entries["hash"][:-1]]) if len(entries) else np.empty(0, bool)
    starts = np.maximum.accumulate(np.where(first, np.arange(len(entries)), 0))
    position = np.arange(len(entries)) - starts
    low, high = window(number)
    index = np.flatnonzero((position > low) & is_free(entries["priority"]))
    index = index[~contains(gone, entries["place"][index])]
    if wanted is not None:
        index = index[contains(wanted, entries["place"][index])]
    left = index[position[index] > high]
    parts = list(_pairs(entries, starts, position, index, (low, high)))
    pairs = [part[~contains(gone, part["earlier"])] for part in parts]
    return pairs, np.unique(_paired(entries, left, left))


def _pairs(
    entries: Table,
    starts: NDArray[np.int64],
    position: NDArray[np.int64],
    index: NDArray[np.int64],
    reach: tuple[int, int],
) -> Iterator[Table]:
    """Yield the pairs of members at `index` with the member at each place of the window."""
    for place in range(*reach):
        index = index[position[index] > place]
        if not len(index):
            return
        yield _paired(entries, index, starts[index] + place)


def _paired(entries: Table, later: NDArray[np.int64], earlier: NDArray[np.int64]) -> Table:
    """Return pairs of entries."""
    pairs = np.empty(len(later), PAIR)
    pairs["later"], pairs["earlier"] = entries["place"][later], entries["place"][earlier]
    pairs["priority"] = entries["priority"][later]
    return pairs


def decide(similar: Table, left: Table) -> tuple[Table, Table]:
    """Decide which passages give way, and which are still open.

    Args:
        similar: All pairs of near duplicates that are known.
        left: Passages that were not compared with all earlier ones in their bands.

    Returns:
        The places of the passages that give way, and of those that stay open, each ascending.
    """
    rows = np.concatenate([similar, left])
    if not len(rows):
        return _ascending(set()), _ascending(set())
    rows = rows[np.lexsort((rows["later"], rows["priority"]))]
    gone: set[int] = set()
    unsure: set[int] = set()
    bounds = np.flatnonzero(np.concatenate([[True], rows["later"][1:] != rows["later"][:-1], [True]]))
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        later = int(rows["later"][start])
        earlier = set(rows["earlier"][start:stop].tolist())
        others = earlier - {later}
        if others - gone - unsure:
            gone.add(later)
        elif later in earlier or others & unsure:
            unsure.add(later)
    return _ascending(gone), _ascending(unsure)


def _ascending(places: set[int]) -> Table:
    """Return places as an array in ascending order."""
    return np.array(sorted(places), np.uint64)
