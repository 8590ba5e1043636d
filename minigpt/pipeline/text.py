"""Documents as the token lists and batches that the stages eat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from minigpt.corpus.definitions import Definition
from minigpt.corpus.definitions import definitions as defined_in
from minigpt.evaluation.mcq import TEMPLATE
from minigpt.healing import TokenText
from minigpt.transformer.batches import Batch, take_tokens, to_batches
from minigpt.transformer.packing import pack, tokenize
from minigpt.types import Corpus, Document

ASK_MEANING = ("What is {term}?", "What does the term {term} mean?", "How is {term} defined?", "Define {term}.")
ASK_TERM = (
    "What is the term for {meaning}?",
    "Which term means {meaning}?",
    "What do we call {meaning}?",
    "Which word or phrase fits this definition: {meaning}?",
)
_ARTICLES = frozenset({"The", "A", "An", "Any"})


def token_text(tokenizer: Any, documents: Sequence[Document], window: int) -> TokenText:
    """Documents tokenized for training, with their size in bytes."""
    windows = tuple(tuple(ids) for ids in tokenize(tokenizer, documents, window=window))
    return TokenText(windows=windows, bytes=sum(len(document.text.encode()) for document in documents))


def dev_sample(documents: Sequence[Document], limit: int | None) -> list[Document]:
    """The first documents up to `limit` bytes (any beginning of a split is a fair sample of it); at least one."""
    taken: list[Document] = []
    left = limit
    for document in documents:
        taken.append(document)
        if left is not None and (left := left - len(document.text.encode())) <= 0:
            break
    return taken


def in_turns(first: Sequence[Document], second: Sequence[Document]) -> list[Document]:
    """Documents of both so that at any point about as many bytes of each have been read.

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
    """The domain's training text and, behind it, general text of `share` times its bytes (as far as there is some)."""
    found = list(domain.train)
    if general is not None and share > 0:
        size = sum(len(document.text.encode()) for document in found)
        found += dev_sample(general.train, int(share * size))
    return found


def definition_documents(documents: Sequence[Document], times: int, seed: int) -> list[Document]:
    """The definitions that stand in this text as questions and answers, `times` times over, in changing words."""
    defined = defined_in(documents) if times else []
    return [each for time in range(times) for each in asked_and_answered(defined, seed + time)]


def asked_and_answered(found: Sequence[Definition], seed: int) -> list[Document]:
    """Each definition as two questions in the form in which questions are scored: what a term means, and its reverse.

    The wording is drawn from a few plain ones, so that no single one is learnt.
    """
    drawn = Random(seed)
    documents = []
    for each in found:
        meaning = each.meaning[0].lower() + each.meaning[1:] if each.meaning.split()[0] in _ARTICLES else each.meaning
        pairs = (
            (drawn.choice(ASK_MEANING).format(term=each.term), f"{meaning[0].upper()}{meaning[1:]}."),
            (drawn.choice(ASK_TERM).format(meaning=meaning), each.term),
        )
        documents += [
            Document(text=f"{TEMPLATE.format(question=question)} {answer}", source=each.source, license=each.license)
            for question, answer in pairs
        ]
    return documents


def calibration_batches(
    tokenizer: Any, documents: Sequence[Document], *, window: int, tokens: int, batch_tokens: int
) -> list[Batch]:
    """Packed calibration text: whole windows up to `tokens` tokens."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    packed = pack(tokenize(tokenizer, documents, window=window), window, pad=int(pad))
    return list(take_tokens(to_batches(packed, batch_tokens=batch_tokens), tokens))


def token_counts(tokenizer: Any, documents: Sequence[Document]) -> Counter[int]:
    """How often each token of `tokenizer` occurs in the documents."""
    counts: Counter[int] = Counter()
    for ids in tokenizer([document.text for document in documents], add_special_tokens=False, verbose=False)[
        "input_ids"
    ]:
        counts.update(ids)
    return counts
