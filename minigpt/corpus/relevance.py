"""Relevance of documents by embeddings: find those unlike the domain, and order the others so that they cover it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minigpt.corpus.split import by_draw, draw
from minigpt.progress import SILENT, Reporter
from minigpt.types import Document

Floats = NDArray[np.float32]

# Relevance below which a document is irrelevant. Unrelated text has a cosine near 0 with the packaged encoder.
FLOOR = 0.10
# Largest share of documents that count as irrelevant.
TAIL = 0.25
# Passages that are embedded of each document at most.
PASSAGES = 4
# Documents that `covering_order` chooses from: its time and memory grow with their square.
CANDIDATES = 2000
# Texts that are encoded at once.
BATCH = 64


class Encoder(Protocol):
    """An encoder that turns texts into vectors."""

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return one vector of length 1 for each text, [texts, width]."""


class SentenceEncoder:
    """The packaged sentence encoder (all-MiniLM-L6-v2). It reads the first 128 tokens of a text.

    Args:
        device: Device to compute on; None for the library's choice.
    """

    def __init__(self, device: str | None = None) -> None:
        from sentence_transformers import SentenceTransformer

        from minigpt import assets
        from minigpt.assets.quiet import quiet_transformers

        with quiet_transformers():
            self.model: Any = SentenceTransformer(str(assets.encoder()), device=device, local_files_only=True)
        self.model.max_seq_length = 128

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return one vector of length 1 for each text, [texts, 384]."""
        vectors = self.model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Documents in embedding space.

    Attributes:
        sources: Names of the documents.
        vectors: One vector of length 1 for each document, [documents, width].
        relevance: Relevance of each document to the domain, -1 to 1, [documents].
    """

    sources: tuple[str, ...]
    vectors: Floats
    relevance: Floats


def embed(
    documents: Sequence[Document], seeds: Sequence[str], encoder: Encoder, *, seed: int, reporter: Reporter = SILENT
) -> Embedded:
    """Embed each document as the mean of up to `PASSAGES` of its passages.

    The relevance of a passage is its cosine to the nearest seed sentence; the relevance of a document is the mean over
    its passages. A single passage of a textbook may lack the words of its subject; the mean is safer.

    Args:
        documents: Passages of the documents.
        seeds: Sentences that say what the domain is about.
        encoder: Encoder of passages and seed sentences.
        seed: Seed of the draw of passages and of the order of documents.
        reporter: Receives progress.
    """
    sources = by_draw((document.source for document in documents), seed)
    texts: dict[str, list[str]] = {source: [] for source in sources}
    for document in documents:
        texts[document.source].append(document.text)
    drawn = [sorted(texts[s], key=lambda text: (draw(seed, text), text))[:PASSAGES] for s in sources]
    flat = [text for texts_of_document in drawn for text in texts_of_document]
    batches = range(0, len(flat), BATCH)
    rows = [
        encoder.encode(flat[start : start + BATCH])
        for start in reporter.track(batches, title="Embedding", total=len(batches))
    ]
    passages = np.concatenate(rows)
    near = (passages @ encoder.encode(list(seeds)).T).max(axis=1)
    starts = np.cumsum([0, *map(len, drawn[:-1])])
    counts = np.array([len(texts_of_document) for texts_of_document in drawn], np.float32)
    vectors = np.add.reduceat(passages, starts, axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
    relevance = np.add.reduceat(near, starts) / counts
    return Embedded(sources=tuple(sources), vectors=vectors.astype(np.float32), relevance=relevance.astype(np.float32))


def irrelevant(embedded: Embedded, *, floor: float = FLOOR, tail: float = TAIL) -> tuple[str, ...]:
    """Return the names of irrelevant documents, the least relevant first.

    Args:
        embedded: The documents.
        floor: Relevance below which a document is irrelevant.
        tail: Largest share of documents to return. It keeps seed sentences that miss their domain from emptying it.
    """
    order = np.argsort(embedded.relevance, kind="stable")
    below = [int(index) for index in order if embedded.relevance[index] < floor]
    return tuple(embedded.sources[index] for index in below[: int(tail * len(order))])


def covering_order(embedded: Embedded, sizes: Mapping[str, int], *, wanted: int) -> list[str]:
    """Order documents so that the first ones cover the domain as well as their number allows.

    Greedy facility location under a budget (Lin and Bilmes 2010). The next document is the one that most raises the
    sum of the cosines between every document and the nearest chosen one, divided by the root of its bytes, so that a
    few long documents do not use up the budget. Farthest-first sampling would start with the outliers.

    Args:
        embedded: The documents. Only the first `CANDIDATES` take part.
        sizes: Bytes of each document.
        wanted: Bytes after which choosing ends. The other documents follow in their order.

    Returns:
        The names of all documents.
    """
    vectors = embedded.vectors[:CANDIDATES]
    similar = np.clip(vectors @ vectors.T, 0, None)
    covered = np.zeros(len(vectors), np.float32)
    cost = np.sqrt([max(sizes[source], 1) for source in embedded.sources[:CANDIDATES]])
    order: list[int] = []
    total = 0
    while total < wanted and len(order) < len(vectors):
        gains = np.maximum(similar - covered, 0).sum(axis=1) / cost
        gains[order] = -1
        best = int(np.argmax(gains))
        order.append(best)
        covered = np.maximum(covered, similar[best])
        total += sizes[embedded.sources[best]]
    ordered = set(order)
    return [embedded.sources[i] for i in (*order, *(i for i in range(len(embedded.sources)) if i not in ordered))]


def round_robin(documents: Sequence[Document], order: Sequence[str]) -> list[Document]:
    """Return the first passages of all documents in `order`, then the second ones, and so on.

    The first passages of the result then come from as many documents as possible.
    """
    by_source: dict[str, list[Document]] = {source: [] for source in order}
    for document in documents:
        by_source[document.source].append(document)
    longest = max(map(len, by_source.values()), default=0)
    return [
        document
        for turn in range(longest)
        for source in order
        for document in islice(by_source[source], turn, turn + 1)
    ]
