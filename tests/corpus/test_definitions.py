"""Definitions in running text, and the questions made of them."""

from __future__ import annotations

import pytest

from minigpt.corpus.definition_questions import (
    MEANING_QUESTIONS,
    TERM_QUESTIONS,
    definition_documents,
    questions_and_answers,
)
from minigpt.corpus.definitions import definitions
from minigpt.corpus.selection import training_documents
from minigpt.evaluation.mcq import TEMPLATE
from minigpt.types import Corpus, Document


def document(text: str, source: str = "s") -> Document:
    return Document(text=text, source=source, license="CC0")


@pytest.mark.parametrize(
    ("sentence", "term", "meaning"),
    [
        (
            "A line-item veto is a type of veto that keeps most of a spending bill unaltered.",
            "line-item veto",
            "a type of veto that keeps most of a spending bill unaltered",
        ),
        (
            "Federalism refers to a system of government with two levels of authority.",
            "Federalism",
            "a system of government with two levels of authority",
        ),
        (
            "The region of the pulp cavity that runs through a root is called the root canal.",
            "root canal",
            "The region of the pulp cavity that runs through a root",
        ),
    ],
)
def test_three_ways_of_defining_are_found(sentence: str, term: str, meaning: str) -> None:
    (definition,) = definitions([document(f"Some words before. {sentence} And more after it.", "book")])
    assert (definition.term, definition.meaning, definition.source, definition.license) == (
        term,
        meaning,
        "book",
        "CC0",
    )


@pytest.mark.parametrize(
    "sentence",
    [
        "This is a very important component of the right to free expression.",
        "Although this limitation is a significant one for all of us, it has not held.",
        "The only difference is a question of procedure and of who shall decide it.",
        "A veto is a short word.",
        "A tax is a tax that the government collects from all of its citizens.",
        "Die Verfassung ist ein Gesetz, das über allen anderen Gesetzen des Landes steht.",
    ],
)
def test_what_defines_nothing_is_left(sentence: str) -> None:
    assert definitions([document(sentence)]) == []


def test_the_first_definition_of_a_term_stays() -> None:
    first = "Federalism is a system of government that creates two levels of authority."
    later = "federalism is a principle under which power is divided between states and nation."
    assert [definition.meaning for definition in definitions([document(first), document(later)])] == [
        "a system of government that creates two levels of authority"
    ]


def test_a_definition_becomes_two_questions() -> None:
    found = definitions([document("A bond is a financial contract under which a borrower repays what it borrowed.")])
    meaning, term = questions_and_answers(found, 0, template=TEMPLATE)
    questions = {TEMPLATE.format(question=each.format(term="bond")) for each in MEANING_QUESTIONS}
    assert meaning.text.split("\nAnswer:")[0] + "\nAnswer:" in questions
    assert meaning.text.endswith(" A financial contract under which a borrower repays what it borrowed.")
    told = "a financial contract under which a borrower repays what it borrowed"
    assert any(term.text == f"{TEMPLATE.format(question=each.format(meaning=told))} bond" for each in TERM_QUESTIONS)
    assert questions_and_answers(found, 0, template=TEMPLATE) == [meaning, term]


def test_only_training_text_is_asked_about() -> None:
    """Definitions of dev and held-out documents never become training text, and without the option nothing does."""
    bond = document("A bond is a financial contract under which a borrower repays what it borrowed.", "train")
    swap = document("A swap is a financial contract under which two parties exchange payments.", "held")
    corpus = Corpus(domain="d", calibration=(swap,), train=(bond,), dev=(swap,), heldout=(swap,))
    assert training_documents(corpus, None, 0.0) == [bond]
    asked = definition_documents(training_documents(corpus, None, 0.0), 3, 0, template=TEMPLATE)
    assert len(asked) == 6 and not any("swap" in each.text for each in asked)
    assert definition_documents([bond], 0, 0, template=TEMPLATE) == []
