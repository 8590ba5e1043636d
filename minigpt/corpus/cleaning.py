"""Cleaning of the text that was read: normalize it, sample it, and drop repetitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from heapq import heappush, heapreplace

from minigpt.corpus import dedup
from minigpt.corpus.normalize import normalize
from minigpt.corpus.split import Passage, draw
from minigpt.errors import CorpusError
from minigpt.progress import SILENT, Reporter

# Of two duplicates the one with the lower rank stays: training text gives way to text that measures.
RANKS = {"heldout": 0, "other": 1, "dev": 2, "train": 3, "auto": 3}
# Splits whose text is never sampled.
ALWAYS = ("heldout", "other", "dev")


@dataclass(frozen=True, slots=True)
class _Reversed:
    """A name that sorts before those that it would follow."""

    name: str

    def __lt__(self, other: _Reversed) -> bool:
        return self.name > other.name


def clean(passages: Iterable[Passage], tally: Counter[str]) -> Iterator[Passage]:
    """Normalize the texts and drop empty ones.

    Args:
        passages: Passages as they were read.
        tally: Counts; `read` and `empty` are added.

    Raises:
        CorpusError: All passages are empty.
    """
    for passage in passages:
        tally["read"] += 1
        if text := normalize(passage.document.text):
            yield replace(passage, document=replace(passage.document, text=text))
        else:
            tally["empty"] += 1
    if tally["empty"] == tally["read"]:
        raise CorpusError(f"No text found ({tally['read']} passages read, all empty); check the domain's sources.")


def drop_unknown_ends(passages: list[Passage]) -> list[Passage]:
    """Take the mark of a document's end off all passages of documents that would end more than once.

    Such a document comes in several rows, and nothing says which of them is its last.
    """
    ends = Counter(passage.document.source for passage in passages if passage.document.ends)
    return [
        passage
        if ends[passage.document.source] < 2
        else replace(passage, document=replace(passage.document, ends=False))
        for passage in passages
    ]


def sample_documents(passages: Iterable[Passage], limit: int | None, seed: int, tally: Counter[str]) -> list[Passage]:
    """Keep a random sample of the documents that may be trained on, without holding the others in memory.

    Args:
        passages: Passages of all documents.
        limit: Number of documents to keep; None keeps all. Documents declared held-out, other or dev are kept besides.
        seed: Seed of the sample.
        tally: Counts; `beyond_max_documents` is added.
    """
    if limit is None:
        return list(passages)
    always: list[tuple[int, Passage]] = []
    sampled: dict[str, list[tuple[int, Passage]]] = {}
    # The last document of the sample is on top: a draw is negative, so that the heap's smallest is the largest.
    last: list[tuple[int, _Reversed]] = []
    for number, passage in enumerate(passages):
        source = passage.document.source
        if passage.declared in ALWAYS:
            always.append((number, passage))
        elif source in sampled:
            sampled[source].append((number, passage))
        else:
            entry = (-draw(seed, source), _Reversed(source))
            if len(last) == limit and entry < last[0]:
                tally["beyond_max_documents"] += 1
                continue
            sampled[source] = [(number, passage)]
            if len(last) < limit:
                heappush(last, entry)
            else:
                _, dropped = heapreplace(last, entry)
                tally["beyond_max_documents"] += len(sampled.pop(dropped.name))
    rows = [*always, *(row for document in sampled.values() for row in document)]
    return [passage for _, passage in sorted(rows, key=lambda row: row[0])]


def priority(passage: Passage, seed: int) -> tuple[int, int, str, str, str, str]:
    """Return the place of a passage in the order in which duplicates give way: the rank of its split, then a draw."""
    document = passage.document
    drawn = draw(seed, document.source, document.text)
    return RANKS[passage.declared], drawn, document.source, document.text, document.license, passage.origin


def drop_duplicates(
    passages: list[Passage], seed: int, tally: Counter[str], reporter: Reporter = SILENT
) -> list[Passage]:
    """Drop repeated passages and put the rest into the seed's order.

    Of two duplicates the one that is declared held-out, other or dev stays, in this order: training text gives way to
    text that measures. Text declared held-out or other loses only exact duplicates, not near ones.

    Args:
        passages: Normalized passages.
        seed: Seed of the order.
        tally: Counts; `exact_duplicates` and `near_duplicates` are added.
        reporter: Receives progress.
    """
    ordered = sorted(passages, key=lambda passage: priority(passage, seed))
    unique = [ordered[index] for index in dedup.drop_exact_duplicates([passage.document.text for passage in ordered])]
    protected = [index for index, passage in enumerate(unique) if passage.declared in ("heldout", "other")]
    texts = [passage.document.text for passage in unique]
    near = dedup.drop_near_duplicates(texts, protected=protected, reporter=reporter)
    kept = [unique[index] for index in near]
    tally["exact_duplicates"] += len(ordered) - len(unique)
    tally["near_duplicates"] += len(unique) - len(kept)
    return kept
