"""Repeated text: exact duplicates, near duplicates, and training text that gives the held-out text away."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAR = 0.8
PROPOSE = 0.7
SHINGLE = 5
PERMUTATIONS = 128

Grams = NDArray[np.uint64]
Table = tuple[Grams, NDArray[np.int64], NDArray[np.int64]]

_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_BASE = np.uint64(0x9E3779B97F4A7C15)


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; in scripts written without spaces each character is a word."""
    return _WORD.findall(text.lower())


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def grams(tokens: Sequence[str], size: int) -> Grams:
    """Hash every run of `size` words to 64 bits; a shorter text is one run, an empty one has none.

    Returns:
        The distinct hashes in ascending order, equal on every machine.
    """
    return _runs(_hashes(tokens), min(size, len(tokens))) if tokens else np.empty(0, np.uint64)


def _hashes(tokens: Sequence[str]) -> Grams:
    """Of each word."""
    return np.fromiter(map(_word_hash, tokens), np.uint64, len(tokens))


def _runs(hashes: Grams, size: int) -> Grams:
    """Distinct hashes of the runs of `size` words, at most as many as there are, from the words' hashes."""
    count = len(hashes) - size + 1
    total = np.zeros(count, np.uint64)
    for offset in range(size):
        total = total * _BASE + hashes[offset : offset + count]
    total ^= total >> np.uint64(31)
    return np.unique(total * _BASE)


def exact(texts: Sequence[str]) -> list[int]:
    """Indices of the first of each text, comparing words and ignoring case, punctuation and white space."""
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        first.setdefault(" ".join(words(text)) or text, index)
    return sorted(first.values())


def jaccard(left: Grams, right: Grams) -> float:
    """Size of the intersection over the size of the union; two empty sets count as different."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    union = len(left) + len(right) - shared
    return shared / union if union else 0.0


def distinct(texts: Sequence[str], *, protected: Collection[int] = (), threshold: float = NEAR) -> list[int]:
    """Choose texts in order so that no two chosen ones are near duplicates.

    Near duplicates share at least `threshold` of their five-word shingles (Jaccard; Broder 1997). MinHash with
    locality-sensitive hashing proposes the pairs, at `PROPOSE` of the threshold so that hardly any escapes, and the
    exact Jaccard decides. Earlier texts win, hence the order is the priority.

    Args:
        texts: The texts, most important first.
        protected: Indices kept even beside a near duplicate; the others give way to them wherever they stand.
        threshold: The Jaccard similarity from which two texts count as one.

    Returns:
        The indices kept, ascending.
    """
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=PROPOSE * threshold, num_perm=PERMUTATIONS, weights=(0.1, 0.9))
    order = [*sorted(protected), *(i for i in range(len(texts)) if i not in protected)]
    shingles: dict[int, Grams] = {}
    for i in order:
        mine = grams(words(texts[i]), SHINGLE)
        sketch = _sketch(mine)
        if i not in protected and any(jaccard(mine, shingles[j]) >= threshold for j in index.query(sketch)):
            continue
        index.insert(i, sketch, check_duplication=False)
        shingles[i] = mine
    return sorted(shingles)


def _sketch(shingles: Grams) -> Any:
    """A MinHash of shingles that are hashed already; datasketch wants 32 bits."""
    sketch = _empty_sketch().copy()
    sketch.update_batch(shingles >> np.uint64(32))
    return sketch


@lru_cache(maxsize=1)
def _empty_sketch() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int)


class Overlap:
    """Finds texts that share word runs with a set of targets, such as held-out passages or test questions.

    Args:
        targets: What must not be given away. One shorter than `size` words is compared as a whole; below `SHORTEST`
            words, where equality is chance, it is skipped.
        size: Words in a run.
        share: The part of a target's runs that a text must hold to give it away, and the part of a text's own runs
            that may come from targets; 0 means that a single run is too much.
    """

    SHORTEST = 8

    def __init__(self, targets: Iterable[str], *, size: int, share: float) -> None:
        self.share = share
        by_size: dict[int, list[Grams]] = {}
        for tokens in map(words, targets):
            if len(tokens) >= self.SHORTEST:
                run = min(size, len(tokens))
                by_size.setdefault(run, []).append(grams(tokens, run))
        self.tables = [(run, _table(found)) for run, found in sorted(by_size.items())]

    def hits(self, text: str) -> bool:
        """Whether `text` gives a target away, or is itself made of targets to more than `share`."""
        hashes = _hashes(words(text))
        return any(self._hits(_runs(hashes, run), table) for run, table in self.tables if run <= len(hashes))

    def _hits(self, mine: Grams, table: Table) -> bool:
        hashes, owners, sizes = table
        low, high = np.searchsorted(hashes, mine, "left"), np.searchsorted(hashes, mine, "right")
        if not (found := int((high > low).sum())):
            return False
        if self.share == 0 or found >= self.share * len(mine):
            return True
        counts = np.bincount(owners[_ranges(low, high)], minlength=len(sizes))
        return bool((counts >= self.share * sizes).any())


def _table(found: list[Grams]) -> Table:
    """All runs of all targets sorted by hash, the target each belongs to, and the number of runs of each target."""
    hashes = np.concatenate(found)
    sizes = np.array([len(item) for item in found], np.int64)
    order = np.argsort(hashes, kind="stable")
    return hashes[order], np.repeat(np.arange(len(found)), sizes)[order], sizes


def _ranges(low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join the index ranges `low[i]:high[i]`."""
    pieces: Iterator[NDArray[np.int64]] = (np.arange(a, b) for a, b in zip(low, high, strict=True) if b > a)
    return np.concatenate(list(pieces))
