"""Repeated text: exact duplicates, near duplicates, and training text that gives the held-out text away."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAR = 0.8
PROPOSE = 0.7
SHINGLE = 5
PERMUTATIONS = 128
SIEVE = 16
"""Places of a sieve for each run that it lets through."""

Grams = NDArray[np.uint64]

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
    return np.unique(_runs(_hashes(tokens), min(size, len(tokens)))) if tokens else np.empty(0, np.uint64)


def _hashes(tokens: Sequence[str]) -> Grams:
    """Of each word."""
    return np.fromiter(map(_word_hash, tokens), np.uint64, len(tokens))


def _runs(hashes: Grams, size: int) -> Grams:
    """Hash of the run of `size` words that starts at each place, from the words' hashes."""
    count = max(0, len(hashes) - size + 1)
    total = np.zeros(count, np.uint64)
    for offset in range(size):
        total = total * _BASE + hashes[offset : offset + count]
    total ^= total >> np.uint64(31)
    return total * _BASE


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


@dataclass(frozen=True, slots=True)
class Hashed:
    """Texts as hashes of their words, one behind the other: text i is `hashes[starts[i] : starts[i + 1]]`."""

    hashes: Grams
    starts: NDArray[np.int64]


def hashed(texts: Iterable[str]) -> Hashed:
    """The words of texts, hashed."""
    each = [_hashes(words(text)) for text in texts]
    starts = np.cumsum([0, *map(len, each)], dtype=np.int64)
    return Hashed(np.concatenate([np.empty(0, np.uint64), *each]), starts)


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
        self.tables = [_Table.of(found, run) for run, found in sorted(by_size.items())]

    def among(self, texts: Hashed) -> NDArray[np.bool_]:
        """Whether each text gives a target away, or is itself made of targets to more than `share`.

        All texts at once, since hardly any run of theirs is one of a target.
        """
        found = np.zeros(len(texts.starts) - 1, bool)
        owners = np.repeat(np.arange(len(found)), np.diff(texts.starts))
        for table in self.tables:
            runs = _runs(texts.hashes, table.size)
            places = np.flatnonzero(table.may_hold(runs))
            places = places[owners[places] == owners[places + table.size - 1]]  # no run goes on into the next text
            for text in np.unique(owners[places[table.holds(runs[places])]]):
                if self.share == 0:
                    found[text] = True
                elif not found[text]:
                    last = texts.starts[text + 1] - table.size + 1
                    found[text] = self._is_given_away(np.unique(runs[texts.starts[text] : last]), table)
        return found

    def _is_given_away(self, mine: Grams, table: _Table) -> bool:
        low, high = table.ranges(mine)
        if int((high > low).sum()) >= self.share * len(mine):
            return True
        counts = np.bincount(table.owners[_joined(low, high)], minlength=len(table.sizes))
        return bool((counts >= self.share * table.sizes).any())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """All runs of `size` words of all targets, sorted by hash, the target each belongs to, and how many each has.

    `sieve` says for the last bits of a hash whether a run might be there.
    """

    size: int
    hashes: Grams
    owners: NDArray[np.int64]
    sizes: NDArray[np.int64]
    sieve: NDArray[np.bool_]

    @classmethod
    def of(cls, found: list[Grams], size: int) -> _Table:
        hashes = np.concatenate(found)
        sizes = np.array([len(item) for item in found], np.int64)
        order = np.argsort(hashes, kind="stable")
        sieve = np.zeros(1 << (SIEVE * len(hashes)).bit_length(), bool)
        sieve[hashes & np.uint64(len(sieve) - 1)] = True
        owners = np.repeat(np.arange(len(found)), sizes)[order]
        return cls(size=size, hashes=hashes[order], owners=owners, sizes=sizes, sieve=sieve)

    def may_hold(self, runs: Grams) -> NDArray[np.bool_]:
        """Whether each run might be in the table; those that are not, hardly ever."""
        return np.asarray(self.sieve[runs & np.uint64(len(self.sieve) - 1)])

    def holds(self, runs: Grams) -> NDArray[np.bool_]:
        """Whether each run is in the table."""
        low, high = self.ranges(runs)
        return high > low

    def ranges(self, runs: Grams) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each run stands in the table, from and up to."""
        return np.searchsorted(self.hashes, runs, "left"), np.searchsorted(self.hashes, runs, "right")


def _joined(low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join the index ranges `low[i]:high[i]`."""
    pieces: Iterator[NDArray[np.int64]] = (np.arange(a, b) for a, b in zip(low, high, strict=True) if b > a)
    return np.concatenate(list(pieces))
