"""Coverage: the part of a measured text whose word runs stand anywhere in the training text.

A guard that compares pairs of passages cannot see phrases that are spread over many documents: templates, standard
clauses, boilerplate. A model that reproduces them does well on held-out text without knowing the field. The overlap of
runs of 8 words is the measure with which contamination is commonly counted (GPT-2, section 4: 8-grams).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from minigpt.corpus.dedup import SIEVE, Grams, HashedTexts, hash_runs, hash_texts
from minigpt.corpus.guard import TEXT_RUN
from minigpt.results import Coverage
from minigpt.types import Document

# Share of a document's runs below which the training text tells next to nothing about it.
UNSEEN = 0.02
# Share of a text's runs from which its figures say more about repeated wording than about the field.
WARN = 0.20
# Training passages that are searched at once, which bounds the memory.
TOGETHER = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRuns:
    """Runs of words of each document of a text, and how many of them stand in the training text.

    Attributes:
        keys: Sources of the documents; the two columns below run parallel to them.
        seen: Runs that stand in the training text.
        runs: All runs; 0 for a document that is shorter than a run.
    """

    keys: tuple[str, ...]
    seen: tuple[int, ...]
    runs: tuple[int, ...]

    @property
    def share(self) -> float:
        """Share of all runs that stand in the training text."""
        return sum(self.seen) / max(1, sum(self.runs))

    @property
    def unseen(self) -> tuple[str, ...]:
        """Sources of the documents of which less than `UNSEEN` stands in the training text."""
        columns = zip(self.keys, self.seen, self.runs, strict=True)
        return tuple(key for key, seen, runs in columns if runs and seen < UNSEEN * runs)


def seen_runs(texts: Mapping[str, Sequence[Document]], training: Iterable[Document]) -> dict[str, SeenRuns]:
    """Count for each measured text how many of its runs of 8 words stand anywhere in the training text.

    Memory grows with the measured text alone: of the training text only a batch is held. No run crosses the border of
    a passage.

    Args:
        texts: Measured passages by task.
        training: All passages that are trained on, in any order.
    """
    hashed = {task: hash_texts(document.text for document in documents) for task, documents in texts.items()}
    runs = {task: _runs(text) for task, text in hashed.items()}
    table = np.unique(np.concatenate([np.empty(0, np.uint64), *(hashes for hashes, _ in runs.values())]))
    is_seen = _stand_in(table, training)
    counts = {}
    for task, documents in texts.items():
        hashes, owners = runs[task]
        seen = is_seen[np.searchsorted(table, hashes)]
        counts[task] = _by_document(documents, seen, owners)
    return counts


def coverage_records(counts: Mapping[str, SeenRuns]) -> tuple[Coverage, ...]:
    """Put the counts of each task into the record of the report; a text without any run has no record."""
    return tuple(
        Coverage(task=task, share=count.share, documents=len(count.keys), unseen=len(count.unseen))
        for task, count in counts.items()
        if sum(count.runs)
    )


def _stand_in(table: Grams, training: Iterable[Document]) -> NDArray[np.bool_]:
    """Return for each run of the table whether it stands in the training text."""
    is_seen = np.zeros(len(table), bool)
    # For the last bits of a hash, True if a run with these bits is in the table: most runs need no search.
    sieve = np.zeros(1 << (SIEVE * max(1, len(table))).bit_length(), bool)
    mask = np.uint64(len(sieve) - 1)
    sieve[table & mask] = True
    for batch in _batches(training):
        hashes, _ = _runs(hash_texts(document.text for document in batch))
        hashes = hashes[sieve[hashes & mask]]
        if len(hashes):
            places = np.searchsorted(table, hashes).clip(max=len(table) - 1)
            is_seen[places[table[places] == hashes]] = True
    return is_seen


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Yield lists of at most `TOGETHER` documents."""
    stream = iter(documents)
    while batch := list(islice(stream, TOGETHER)):
        yield batch


def _runs(texts: HashedTexts) -> tuple[Grams, NDArray[np.int64]]:
    """Return the hashes of all runs, with the index of the text of each; none crosses into the next text."""
    hashes = hash_runs(texts.hashes, TEXT_RUN)
    owners = np.repeat(np.arange(len(texts.starts) - 1), np.diff(texts.starts))
    inside = owners[: len(hashes)] == owners[TEXT_RUN - 1 :]
    return hashes[inside], owners[: len(hashes)][inside]


def _by_document(documents: Sequence[Document], seen: NDArray[np.bool_], owners: NDArray[np.int64]) -> SeenRuns:
    """Add up the runs of the passages of each document."""
    keys = tuple(dict.fromkeys(document.source for document in documents))
    place = {key: index for index, key in enumerate(keys)}
    document_of = np.fromiter((place[document.source] for document in documents), np.int64, len(documents))
    rows = document_of[owners]
    return SeenRuns(
        keys=keys,
        seen=tuple(np.bincount(rows, weights=seen, minlength=len(keys)).astype(int).tolist()),
        runs=tuple(np.bincount(rows, minlength=len(keys)).tolist()),
    )
