"""Draw of the held-out and dev documents of a corpus that does not fit into memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minigpt.corpus.split import FULL, OVER, STRICTNESS, Shares, must_remain, take_wanted

HELDOUT, DEV = "heldout", "dev"
# Most text that is drawn for a split, in bytes: more of it narrows no interval that a report shows.
LIMITS = {HELDOUT: 1 << 22, DEV: 1 << 21}
# Factor on the documents that a draw looks at beyond those that it probably takes.
SPARE = 4.0
AUTO, TRAIN = STRICTNESS["auto"], STRICTNESS["train"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Documents of a partition.

    Attributes:
        names: Draw of each document, by which it is named, [documents].
        sizes: Bytes of each document, [documents].
        strictness: Strictness of the split that is declared for each document, [documents].
    """

    names: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    strictness: NDArray[np.uint8]

    @classmethod
    def empty(cls, count: int) -> Drawn:
        """Return documents without text."""
        return cls(np.zeros(count, np.uint64), np.zeros(count, np.int64), np.zeros(count, np.uint8))


Parts = Callable[[], Iterable[Drawn]]


def draw_splits(parts: Parts, shares: Shares, *, history: str) -> dict[str, list[int]]:
    """Draw held-out and dev documents as :func:`minigpt.corpus.split.hold_out` does, up to `LIMITS`.

    Args:
        parts: Yields the documents of each partition, each time it is called.
        shares: Shares of the splits.
        history: Counts of the passages that were dropped before, for the error message.

    Returns:
        The names of the documents that are drawn for each of the two splits.

    Raises:
        CorpusError: There are too few documents to fill the splits.
    """
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for part in parts():
        for declared, strictness in STRICTNESS.items():
            members = part.strictness == strictness
            count[declared] += int(members.sum())
            size[declared] += int(part.sizes[members].sum())
    remaining = must_remain(count, history)
    leave = max(0, remaining - count["train"])
    wanted = min(shares.heldout * size["auto"], LIMITS[HELDOUT])
    heldout = _draw(parts, {AUTO}, {}, wanted, total=size["auto"], most=count["auto"] - leave)
    dev: dict[int, int] = {}
    if not count["dev"]:
        pool = size["auto"] + size["train"] - sum(heldout.values())
        wanted = min(shares.dev / (1 - shares.heldout) * pool, LIMITS[DEV])
        most = count["auto"] + count["train"] - len(heldout) - 2
        dev = _draw(parts, {AUTO, TRAIN}, heldout, wanted, total=pool, most=most)
    return {HELDOUT: list(heldout), DEV: list(dev)}


def _draw(
    parts: Parts, eligible: Collection[int], without: Collection[int], wanted: float, *, total: int, most: int
) -> dict[int, int]:
    """Take documents in the order of their draws until about `wanted` bytes are taken; return their sizes by name."""
    share = min(1.0, SPARE * wanted / max(total, 1))
    candidates = _first(parts, eligible, without, share)
    # Documents of this size are always taken on the way, so that the draw ends before it runs out of candidates.
    small = sum(size for size in candidates.values() if size <= (OVER - FULL) * wanted)
    if share < 1 and small < FULL * wanted:
        candidates = _first(parts, eligible, without, 1.0)
    return {name: candidates[name] for name in take_wanted(sorted(candidates), candidates, wanted, most=most)}


def _first(parts: Parts, eligible: Collection[int], without: Collection[int], share: float) -> dict[int, int]:
    """Return the sizes of the documents with the lowest draws, a share of all."""
    sizes: dict[int, int] = {}
    for part in parts():
        members = np.isin(part.strictness, list(eligible))
        if share < 1:
            members &= part.names < np.uint64(int(share * 2**64))
        sizes.update(zip(part.names[members].tolist(), part.sizes[members].tolist(), strict=True))
    return {name: size for name, size in sizes.items() if name not in without}
