"""Tables on disk that many tasks write and many read: each task reads one range of the keys of every table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = NDArray[Any]

# An entry of a table of hashes: the hash, and the passage that it belongs to with its priority.
ENTRY = np.dtype([("hash", "u8"), ("priority", "u8"), ("place", "u8")])
# A pair of passages of which the first, which is less important, may repeat the second.
PAIR = np.dtype([("later", "u8"), ("earlier", "u8"), ("priority", "u8")])

# Bits of a place that hold the row; those above hold the partition.
ROW_BITS = np.uint64(32)


def places(partition: int, rows: Table) -> NDArray[np.uint64]:
    """Return the places of rows of a partition: numbers that name each passage of the corpus."""
    return (np.uint64(partition) << ROW_BITS) | rows.astype(np.uint64)


def partition_of(places: Table) -> NDArray[np.int64]:
    """Return the partition of each place."""
    return np.asarray(places >> ROW_BITS, np.int64)


def row_of(places: Table) -> NDArray[np.int64]:
    """Return the row of each place in its partition."""
    return np.asarray(places & np.uint64(0xFFFFFFFF), np.int64)


def hash_range(hashes: Table, ranges: int) -> NDArray[np.int64]:
    """Return the range of each hash: all ranges are about equally large."""
    return np.asarray(((hashes >> np.uint64(32)) * np.uint64(ranges)) >> np.uint64(32), np.int64)


def write_ranged(folder: Path, name: str, table: Table, ranges: NDArray[np.int64], count: int) -> None:
    """Write a table ordered by range, with the place at which each range starts.

    Args:
        folder: Folder of the files `name.bin` and `name-starts.npy`.
        name: Name of the table.
        table: Its rows.
        ranges: Range of each row.
        count: Number of ranges.
    """
    table[np.argsort(ranges, kind="stable")].tofile(folder / f"{name}.bin")
    np.save(folder / f"{name}-starts.npy", np.cumsum([0, *np.bincount(ranges, minlength=count)], dtype=np.int64))


def read_range(folders: Iterable[Path], name: str, number: int, kind: np.dtype[Any]) -> Table:
    """Read one range of the tables of many tasks, in the order of the tasks."""
    parts = [np.empty(0, kind)]
    for folder in folders:
        start, stop = np.load(folder / f"{name}-starts.npy", mmap_mode="r")[number : number + 2]
        if stop > start:
            path, size = folder / f"{name}.bin", kind.itemsize
            parts.append(np.fromfile(path, kind, count=int(stop - start), offset=int(start) * size))
    return np.concatenate(parts)


def contains(ordered: Table, values: Table) -> NDArray[np.bool_]:
    """Return for each value whether it is in an array in ascending order."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    index = np.searchsorted(ordered, values).clip(max=len(ordered) - 1)
    return np.asarray(ordered[index] == values)
