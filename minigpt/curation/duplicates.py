"""Tasks that find duplicates in all partitions: exact ones by their hashes, near ones in rounds."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minigpt.corpus import dedup
from minigpt.curation.context import Context
from minigpt.curation.near import candidates, decide
from minigpt.curation.ranged import (
    ENTRY,
    PAIR,
    Table,
    contains,
    partition_of,
    read_range,
    row_of,
    write_ranged,
)
from minigpt.curation.reading import GRAM_STARTS, GRAMS

# Partitions of which a task keeps the places of the shingles, and passages of which it keeps the shingles.
INDICES, SHINGLES = 64, 8192
GONE = "gone.npy"
OPEN = "open.npy"


def exact(context: Context, rank: int, _round: int) -> None:
    """Find the passages that repeat one of higher priority, among those whose hash is in one range."""
    entries = read_range(context.folders("sketch"), "keys", rank, ENTRY)
    entries = entries[np.lexsort((entries["place"], entries["priority"], entries["hash"]))]
    repeated = np.flatnonzero(entries["hash"][1:] == entries["hash"][:-1]) + 1
    with context.result("exact", rank) as folder:
        np.save(folder / GONE, np.sort(entries["place"][repeated]))


def pairs(context: Context, rank: int, round: int) -> None:
    """List the pairs of passages to compare, among those with a band whose hash is in one range."""
    entries = read_range(context.folders("sketch"), "bands", rank, ENTRY)
    entries = entries[~contains(exact_duplicates(context), entries["place"])]
    before = context.folder(f"decide-{round - 1}", 0)
    gone = np.load(before / GONE) if round else np.empty(0, np.uint64)
    wanted = np.load(before / OPEN) if round else None
    parts, left = candidates(entries, gone, wanted, round)
    proposed = np.unique(np.concatenate([np.empty(0, PAIR), *parts]))
    with context.result(f"pairs-{round}", rank) as folder:
        write_ranged(folder, "pairs", proposed, partition_of(proposed["later"]), context.plan.partitions)
        np.save(folder / OPEN, left)


def verify(context: Context, rank: int, round: int) -> None:
    """Keep the pairs of near duplicates, among those whose later passage is in one partition."""
    proposed = np.unique(read_range(context.folders(f"pairs-{round}"), "pairs", rank, PAIR))
    library = Shingles(context)
    similar = [library.similar(int(pair["later"]), int(pair["earlier"])) for pair in proposed]
    with context.result(f"verify-{round}", rank) as folder:
        np.save(folder / "similar.npy", proposed[np.array(similar, bool)])


def resolve(context: Context, _rank: int, round: int) -> None:
    """Decide which passages give way to near duplicates, from all pairs that are known."""
    known = [folder / "similar.npy" for number in range(round + 1) for folder in context.folders(f"verify-{number}")]
    similar = np.concatenate([np.empty(0, PAIR), *map(np.load, known)])
    left = np.unique(
        np.concatenate([np.empty(0, PAIR), *(np.load(item / OPEN) for item in context.folders(f"pairs-{round}"))])
    )
    gone, unsure = decide(similar, left)
    with context.result(f"decide-{round}", 0) as folder:
        np.save(folder / GONE, gone)
        np.save(folder / OPEN, unsure)


def is_open(context: Context, round: int) -> bool:
    """Return whether a round left passages open, so that another one is needed."""
    return bool(len(np.load(context.folder(f"decide-{round}", 0) / OPEN)))


def exact_duplicates(context: Context) -> Table:
    """Return the places of all exact duplicates, ascending."""
    return np.sort(np.concatenate([np.load(folder / GONE) for folder in context.folders("exact")]))


def near_duplicates(context: Context) -> Table:
    """Return the places of all near duplicates, ascending."""
    rounds = sum(1 for _ in context.work.glob("decide-*"))
    return np.asarray(np.load(context.folder(f"decide-{rounds - 1}", 0) / GONE))


def survivors(context: Context, partition: int, rows: int) -> NDArray[np.bool_]:
    """Return for each passage of a partition whether it is no duplicate, [rows]."""
    kept = np.ones(rows, bool)
    for places in (exact_duplicates(context), near_duplicates(context)):
        kept[row_of(places[partition_of(places) == partition])] = False
    return kept


class Shingles:
    """Reader of the shingles of single passages, from the files of their partitions.

    Args:
        context: The curation.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.starts = lru_cache(INDICES)(lambda partition: np.load(self.folder(partition) / GRAM_STARTS))
        self.of = lru_cache(SHINGLES)(self.read)

    def folder(self, partition: int) -> Path:
        """Return the folder of a partition."""
        return self.context.folder("sketch", partition)

    def bounds(self, place: int) -> tuple[int, int]:
        """Return where the shingles of a passage start and end in its partition."""
        starts, row = self.starts(place >> 32), place & 0xFFFFFFFF
        return int(starts[row]), int(starts[row + 1])

    def read(self, place: int) -> dedup.Grams:
        """Read the shingles of a passage."""
        start, stop = self.bounds(place)
        return np.fromfile(self.folder(place >> 32) / GRAMS, np.uint64, count=stop - start, offset=8 * start)

    def similar(self, left: int, right: int) -> bool:
        """Return whether two passages are near duplicates."""
        sizes = sorted(stop - start for start, stop in map(self.bounds, (left, right)))
        if sizes[0] < dedup.NEAR * sizes[1]:  # their Jaccard similarity is at most the ratio of their sizes
            return False
        return dedup.jaccard(self.of(left), self.of(right)) >= dedup.NEAR
