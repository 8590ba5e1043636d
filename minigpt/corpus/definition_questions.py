"""Definitions that stand in a text, put as questions and answers in the form in which models are asked."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from minigpt.corpus.definitions import Definition, definitions
from minigpt.types import Document

MEANING_QUESTIONS = (
    "What is {term}?",
    "What does the term {term} mean?",
    "How is {term} defined?",
    "Define {term}.",
)
TERM_QUESTIONS = (
    "What is the term for {meaning}?",
    "Which term means {meaning}?",
    "What do we call {meaning}?",
    "Which word or phrase fits this definition: {meaning}?",
)
_ARTICLES = frozenset({"The", "A", "An", "Any"})


def definition_documents(documents: Sequence[Document], times: int, seed: int, *, template: str) -> list[Document]:
    """Put the definitions of a text as questions and answers, `times` times over, in changing words.

    Args:
        documents: the text that holds the definitions.
        times: repetitions, each with wordings of its own; 0 gives none.
        seed: of the wordings.
        template: the form in which questions are scored, with `{question}` in it.
    """
    stated = definitions(documents) if times else []
    return [
        document for time in range(times) for document in questions_and_answers(stated, seed + time, template=template)
    ]


def questions_and_answers(stated: Sequence[Definition], seed: int, *, template: str) -> list[Document]:
    """Put each definition as two questions: what a term means, and which term has a meaning.

    The wording is drawn from a few plain ones, so that no single one is learnt.

    Args:
        stated: definitions.
        seed: of the wordings.
        template: see :func:`definition_documents`.
    """
    drawn = Random(seed)
    documents = []
    for definition in stated:
        meaning = definition.meaning
        if meaning.split()[0] in _ARTICLES:
            meaning = meaning[0].lower() + meaning[1:]
        pairs = (
            (drawn.choice(MEANING_QUESTIONS).format(term=definition.term), f"{meaning[0].upper()}{meaning[1:]}."),
            (drawn.choice(TERM_QUESTIONS).format(meaning=meaning), definition.term),
        )
        documents += [
            Document(
                text=f"{template.format(question=question)} {answer}",
                source=definition.source,
                license=definition.license,
            )
            for question, answer in pairs
        ]
    return documents
