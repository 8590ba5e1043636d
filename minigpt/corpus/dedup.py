"""Repeated text: exact duplicates, near duplicates, and word runs shared with held-out text or questions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigpt.progress import SILENT, Reporter

# Jaccard similarity from which two texts are near duplicates.
NEAR = 0.8
# Factor on that similarity when MinHash proposes pairs, so that hardly any pair is missed.
PROPOSE = 0.7
# Words in a shingle.
SHINGLE = 5
# Hash functions of a MinHash.
PERMUTATIONS = 128
# Places in a table's sieve for each of its runs.
SIEVE = 16

Grams = NDArray[np.uint64]

_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_PIECE = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_BASE = np.uint64(0x9E3779B97F4A7C15)


def words(text: str) -> list[str]:
    """Return the lower-case words of a text, without punctuation.

    In scripts that are written without spaces each character is a word.
    """
    return _WORD.findall(text.lower())


def count_words(text: str) -> int:
    """Count the pieces between white space, and each character of a script that is written without spaces."""
    return sum(1 for _ in _PIECE.finditer(text))


@lru_cache(maxsize=1 << 18)
def _word_hash(word: str) -> int:
    """Hash a word to 64 bits, equally on every machine."""
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def grams(tokens: Sequence[str], size: int) -> Grams:
    """Hash every run of `size` words to 64 bits.

    Args:
        tokens: The words of a text.
        size: Words in a run. A text with fewer words is one run; an empty text has none.

    Returns:
        The distinct hashes in ascending order, equal on every machine.
    """
    return np.unique(hash_runs(_hash_words(tokens), min(size, len(tokens)))) if tokens else np.empty(0, np.uint64)


def _hash_words(tokens: Sequence[str]) -> Grams:
    """Hash each word."""
    return np.fromiter(map(_word_hash, tokens), np.uint64, len(tokens))


def hash_runs(hashes: Grams, size: int) -> Grams:
    """Hash the run of `size` words that starts at each place, given the hashes of the words."""
    count = max(0, len(hashes) - size + 1)
    total = np.zeros(count, np.uint64)
    for offset in range(size):
        total = total * _BASE + hashes[offset : offset + count]
    total ^= total >> np.uint64(31)
    return total * _BASE


def drop_exact_duplicates(texts: Sequence[str]) -> list[int]:
    """Return the indices of the texts that repeat no earlier one. Case, punctuation and white space do not count."""
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        first.setdefault(exact_key(words(text), text), index)
    return sorted(first.values())


def exact_key(tokens: Sequence[str], text: str) -> str:
    """Return what exact duplicates have in common: the words, or the text itself where it has none."""
    return " ".join(tokens) or text


def jaccard(left: Grams, right: Grams) -> float:
    """Return the Jaccard similarity of two sets: intersection over union, and 0 for two empty sets."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    union = len(left) + len(right) - shared
    return shared / union if union else 0.0


def drop_near_duplicates(
    texts: Sequence[str],
    *,
    protected: Collection[int] = (),
    threshold: float = NEAR,
    reporter: Reporter = SILENT,
) -> list[int]:
    """Keep texts in order, without those that are near duplicates of one that is kept already.

    Near duplicates share at least `threshold` of their five-word shingles (Jaccard; Broder 1997). MinHash with
    locality-sensitive hashing proposes the pairs, at a threshold lowered by `PROPOSE`, and the exact Jaccard decides.

    Args:
        texts: The texts, most important first.
        protected: Indices that are kept even beside a near duplicate. They go before all others.
        threshold: The Jaccard similarity from which two texts are near duplicates.
        reporter: Receives progress.

    Returns:
        The indices of the texts that are kept, ascending.
    """
    index = _index(threshold)
    order = [*sorted(protected), *(i for i in range(len(texts)) if i not in protected)]
    shingles: dict[int, Grams] = {}
    for i in reporter.track(order, title="Looking for near duplicates", total=len(order)):
        text_shingles = grams(words(texts[i]), SHINGLE)
        sketch = _sketch(text_shingles)
        if i not in protected and any(jaccard(text_shingles, shingles[j]) >= threshold for j in index.query(sketch)):
            continue
        index.insert(i, sketch, check_duplication=False)
        shingles[i] = text_shingles
    return sorted(shingles)


def _index(threshold: float) -> Any:
    """Return an empty index that proposes pairs of near duplicates."""
    from datasketch import MinHashLSH

    return MinHashLSH(threshold=PROPOSE * threshold, num_perm=PERMUTATIONS, weights=(0.1, 0.9))


@lru_cache(maxsize=1)
def _bands() -> tuple[int, int]:
    """Return the number of bands of an index and the hashes in a band."""
    index = _index(NEAR)
    return index.b, index.r


def band_hashes(shingles: Sequence[Grams]) -> Grams:
    """Hash the bands of texts, for indices that are made in parts: texts that share one are proposed as a pair.

    The bands are those of the index in :func:`drop_near_duplicates`.

    Args:
        shingles: Shingles of each text.

    Returns:
        The hash of each band of each text, [texts, bands].
    """
    count, size = _bands()
    values = np.array([_sketch(item).hashvalues for item in shingles], np.uint64).reshape(len(shingles), PERMUTATIONS)
    bands = np.empty((len(shingles), count), np.uint64)
    for number in range(count):
        total = np.full(len(shingles), number, np.uint64)
        for place in range(number * size, (number + 1) * size):
            total = (total ^ (total >> np.uint64(29))) * _BASE + values[:, place]
        bands[:, number] = (total ^ (total >> np.uint64(31))) * _BASE
    return bands


def _sketch(shingles: Grams) -> Any:
    """Return the MinHash of shingles that are already hashed."""
    sketch = _empty_sketch().copy()
    sketch.update_batch(shingles >> np.uint64(32))  # datasketch takes hashes of 32 bits
    return sketch


@lru_cache(maxsize=1)
def _empty_sketch() -> Any:
    """Return a MinHash without content, to be copied: drawing its hash functions is slow."""
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int)


@dataclass(frozen=True, slots=True)
class HashedTexts:
    """Texts as hashes of their words, joined end to end.

    Attributes:
        hashes: Hashes of all words, [words].
        starts: Place where each text starts, and the end, [texts + 1]: text i is `hashes[starts[i] : starts[i + 1]]`.
    """

    hashes: Grams
    starts: NDArray[np.int64]


def hash_texts(texts: Iterable[str]) -> HashedTexts:
    """Hash the words of texts."""
    parts = [_hash_words(words(text)) for text in texts]
    starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return HashedTexts(np.concatenate([np.empty(0, np.uint64), *parts]), starts)


class Overlap:
    """Finder of texts that share word runs with a set of targets, such as held-out passages or test questions.

    A text overlaps if it holds at least `share` of a target's runs, or if at least `share` of its own runs come from
    targets.

    Args:
        targets: Texts that must not be given away. One shorter than `size` words is one run.
        size: Words in a run.
        share: Share of runs from which a text overlaps; 0 means that a single run is too much.
        shortest: Fewest words of a target. One with fewer is skipped: other texts repeat it by chance.
    """

    # Fewest words of a target that is any piece of text.
    SHORTEST = 8

    def __init__(self, targets: Iterable[str], *, size: int, share: float, shortest: int = SHORTEST) -> None:
        self.share = share
        by_size: dict[int, list[Grams]] = {}
        for tokens in map(words, targets):
            if len(tokens) >= shortest:
                run = min(size, len(tokens))
                by_size.setdefault(run, []).append(grams(tokens, run))
        self.tables = [_Table.of(runs, length) for length, runs in sorted(by_size.items())]

    def matches(self, texts: HashedTexts) -> NDArray[np.bool_]:
        """Return for each text whether it overlaps, [texts]."""
        # All texts are searched at once: hardly any of their runs is a run of a target.
        overlaps = np.zeros(len(texts.starts) - 1, bool)
        owners = np.repeat(np.arange(len(overlaps)), np.diff(texts.starts))
        for table in self.tables:
            runs = hash_runs(texts.hashes, table.size)
            places = np.flatnonzero(table.may_hold(runs))
            places = places[owners[places] == owners[places + table.size - 1]]  # no run crosses into the next text
            for text in np.unique(owners[places[table.holds(runs[places])]]):
                if self.share == 0:
                    overlaps[text] = True
                elif not overlaps[text]:
                    last = texts.starts[text + 1] - table.size + 1
                    overlaps[text] = self._overlaps(np.unique(runs[texts.starts[text] : last]), table)
        return overlaps

    def _overlaps(self, runs: Grams, table: _Table) -> bool:
        """Return True if a text with these runs overlaps the targets of a table."""
        low, high = table.ranges(runs)
        if int((high > low).sum()) >= self.share * len(runs):
            return True
        counts = np.bincount(table.owners[_join_ranges(low, high)], minlength=len(table.sizes))
        return bool((counts >= self.share * table.sizes).any())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """All runs of one length of all targets.

    Attributes:
        size: Words in a run.
        hashes: Hashes of the runs, ascending.
        owners: Target that each run belongs to.
        sizes: Number of runs of each target.
        sieve: For the last bits of a hash, True if a run with these bits is in the table.
    """

    size: int
    hashes: Grams
    owners: NDArray[np.int64]
    sizes: NDArray[np.int64]
    sieve: NDArray[np.bool_]

    @classmethod
    def of(cls, targets: list[Grams], size: int) -> _Table:
        """Build the table from the runs of each target."""
        hashes = np.concatenate(targets)
        sizes = np.array([len(target) for target in targets], np.int64)
        order = np.argsort(hashes, kind="stable")
        sieve = np.zeros(1 << (SIEVE * len(hashes)).bit_length(), bool)
        sieve[hashes & np.uint64(len(sieve) - 1)] = True
        owners = np.repeat(np.arange(len(targets)), sizes)[order]
        return cls(size=size, hashes=hashes[order], owners=owners, sizes=sizes, sieve=sieve)

    def may_hold(self, runs: Grams) -> NDArray[np.bool_]:
        """Return for each run whether it might be in the table: always True if it is, seldom if it is not."""
        return np.asarray(self.sieve[runs & np.uint64(len(self.sieve) - 1)])

    def holds(self, runs: Grams) -> NDArray[np.bool_]:
        """Return for each run whether it is in the table."""
        low, high = self.ranges(runs)
        return high > low

    def ranges(self, runs: Grams) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first place of each run in the table, and the place after its last."""
        return np.searchsorted(self.hashes, runs, "left"), np.searchsorted(self.hashes, runs, "right")


def _join_ranges(low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join the index ranges `low[i]:high[i]` into one array of indices."""
    pieces: Iterator[NDArray[np.int64]] = (np.arange(a, b) for a, b in zip(low, high, strict=True) if b > a)
    return np.concatenate(list(pieces))
