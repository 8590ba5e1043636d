"""Cleaning of the text that was read: normalize it, sample it, and drop repetitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from minigpt.corpus import dedup
from minigpt.corpus.normalize import normalize
from minigpt.corpus.split import Passage, by_draw, draw
from minigpt.errors import CorpusError


def clean(passages: Iterable[Passage], tally: Counter[str]) -> list[Passage]:
    """Normalize the texts and drop empty ones.

    Args:
        passages: Passages as they were read.
        tally: Counts; `read` and `empty` are added.

    Raises:
        CorpusError: All passages are empty.
    """
    kept = []
    for passage in passages:
        tally["read"] += 1
        if text := normalize(passage.document.text):
            kept.append(replace(passage, document=replace(passage.document, text=text)))
        else:
            tally["empty"] += 1
    if not kept:
        raise CorpusError(f"No text found ({tally['read']} passages read, all empty); check the domain's sources.")
    return kept


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


def sample_documents(passages: list[Passage], limit: int | None, seed: int, tally: Counter[str]) -> list[Passage]:
    """Keep a random sample of the documents that may be trained on.

    Args:
        passages: Passages of all documents.
        limit: Number of documents to keep; None keeps all. Documents declared held-out, other or dev are kept besides.
        seed: Seed of the sample.
        tally: Counts; `beyond_max_documents` is added.
    """
    if limit is None:
        return passages
    free = {passage.document.source for passage in passages if passage.declared in ("auto", "train")}
    dropped = set(by_draw(free, seed)[limit:])
    always = ("heldout", "other", "dev")
    kept = [passage for passage in passages if passage.declared in always or passage.document.source not in dropped]
    tally["beyond_max_documents"] += len(passages) - len(kept)
    return kept


def drop_duplicates(passages: list[Passage], seed: int, tally: Counter[str]) -> list[Passage]:
    """Drop repeated passages and put the rest into the seed's order.

    Of two duplicates the one that is declared held-out, other or dev stays, in this order: training text gives way to
    text that measures. Text declared held-out or other loses only exact duplicates, not near ones.

    Args:
        passages: Normalized passages.
        seed: Seed of the order.
        tally: Counts; `exact_duplicates` and `near_duplicates` are added.
    """
    rank = {"heldout": 0, "other": 1, "dev": 2, "train": 3, "auto": 3}

    def priority(passage: Passage) -> tuple[object, ...]:
        document = passage.document
        drawn = draw(seed, document.source, document.text)
        return rank[passage.declared], drawn, document.source, document.text, document.license, passage.origin

    ordered = sorted(passages, key=priority)
    unique = [ordered[index] for index in dedup.drop_exact_duplicates([passage.document.text for passage in ordered])]
    protected = [index for index, passage in enumerate(unique) if passage.declared in ("heldout", "other")]
    texts = [passage.document.text for passage in unique]
    kept = [unique[index] for index in dedup.drop_near_duplicates(texts, protected=protected)]
    tally["exact_duplicates"] += len(ordered) - len(unique)
    tally["near_duplicates"] += len(unique) - len(kept)
    return kept
