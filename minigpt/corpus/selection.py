"""Choose documents by the bytes they hold."""

from __future__ import annotations

from collections.abc import Sequence

from minigpt.types import Corpus, Document


def take_bytes(documents: Sequence[Document], limit: int | None) -> list[Document]:
    """Take the first documents up to about `limit` bytes (None: all), at least one.

    Any beginning of a split is a fair sample of it, since splits are shuffled.
    """
    taken: list[Document] = []
    left = limit
    for document in documents:
        taken.append(document)
        if left is not None and (left := left - len(document.text.encode())) <= 0:
            break
    return taken


def interleave(first: Sequence[Document], second: Sequence[Document]) -> list[Document]:
    """Mix two sequences so that at any point about as many bytes of each have been read.

    Where `second` ends, `first` goes on alone; where `first` ends, that is the end.
    """
    taken: list[Document] = []
    left, right, sizes = iter(first), iter(second), [0, 0]
    for document in left:
        taken.append(document)
        sizes[0] += len(document.text.encode())
        while sizes[1] < sizes[0] and (other := next(right, None)) is not None:
            taken.append(other)
            sizes[1] += len(other.text.encode())
    return taken


def training_documents(domain: Corpus, general: Corpus | None, share: float) -> list[Document]:
    """Append general training text to the domain's.

    Args:
        domain: the domain's corpus.
        general: general text, if there is some.
        share: bytes of general text relative to the domain's; less where there is no more.
    """
    documents = list(domain.train)
    if general is not None and share > 0:
        size = sum(len(document.text.encode()) for document in documents)
        documents += take_bytes(general.train, int(share * size))
    return documents
