"""Derived questions: nothing gives the answer away, and seen and unseen are never mixed."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from minigpt.corpus.questions import (
    Entry,
    balance,
    blank_terms,
    definition_questions,
    leaks,
    sample,
    split_by_seen,
)
from minigpt.errors import CorpusError
from minigpt.types import Question, QuestionSet

BONES = ("femur", "tibia", "ulna", "radius", "scapula", "sternum", "patella", "mandible")


def entries(count: int = 8, *, family: str = "bones") -> list[Entry]:
    return [
        Entry(term=bone, definition=f"The {number}th part of the body in a list", family=family, source=f"doc{number}")
        for number, bone in enumerate(BONES[:count])
    ]


@pytest.mark.parametrize(
    ("term", "definition", "shown"),
    [
        ("Renal cyst", "A sac of fluid in the kidney", False),
        ("Renal cyst", "A CYST of the kidney", True),
        ("Renal cysts", "A cyst of the kidney", True),
        ("Hyperisoleucinemia", "Too much isoleucine in the blood", True),
        ("Payday", "The day on which you are rewarded", True),
        ("Fusion of carpals", "The carpus is fused", True),
        ("Type of the", "the type", True),
        ("Loss of hair", "Absence of the growth on the head", False),
    ],
)
def test_a_leak_is_a_shared_word_in_any_form(term: str, definition: str, shown: bool) -> None:
    assert leaks(term, definition) is shown


def test_blanking_treats_every_option_alike() -> None:
    text, share = blank_terms("Cysts of the kidney and stones of the bladder", ("Renal cyst", "Bladder stone"))
    assert text == "___ of the kidney and ___ of the ___"
    assert share == pytest.approx(3 / 9)


def test_questions_are_balanced_deterministic_and_from_siblings() -> None:
    questions = definition_questions(entries(), seed=3, template="{definition}")
    assert Counter(question.answer for question in questions) == {0: 2, 1: 2, 2: 2, 3: 2}
    for question in questions:
        assert len(set(question.choices)) == 4
        assert set(question.choices) <= set(BONES)
        number = re.search(r"\d", question.question)
        assert number and question.choices[question.answer] == BONES[int(number[0])]
        assert question.source == f"doc{number[0]}"
    other = definition_questions(entries(), seed=4, template="{definition}")
    assert {q.question for q in other} == {q.question for q in questions}
    assert other != questions


def test_a_family_of_three_asks_nothing_unless_cousins_help() -> None:
    small = entries(3)
    assert definition_questions(small, seed=0) == []
    cousins = [Entry(term="pelvis", definition="the hip", family="hips", wider="all", source="d")]
    near = [Entry(**{f: getattr(e, f) for f in ("term", "definition", "family", "source")}, wider="all") for e in small]
    assert len(definition_questions([*near, *cousins], seed=0)) == 4


def test_without_blanks_a_definition_that_shows_its_term_is_left_out_and_no_distractor_is_shown() -> None:
    items = [
        *entries(),
        Entry(term="clavicle", definition="The clavicle, near the sternum", family="bones", source="c"),
    ]
    items.append(Entry(term="rib", definition="It joins the sternum and the spine", family="bones", source="r"))
    questions = {question.source: question for question in definition_questions(items, seed=0)}
    assert "c" not in questions
    assert "sternum" not in questions["r"].choices


def test_with_blanks_no_word_of_any_option_can_be_read() -> None:
    items = [
        *entries(),
        Entry(term="rib", definition="A rib joins sternum and spine and guards the heart", family="bones", source="r"),
    ]
    questions = definition_questions(items, seed=1, template="{definition}", blank=True, max_blank=0.5)
    assert {question.source for question in questions} >= {"r"}
    for question in questions:
        assert not any(leaks(choice, question.question) for choice in question.choices)


def test_a_definition_of_two_terms_and_a_term_of_two_definitions_are_not_asked() -> None:
    twice = [
        Entry(term="femur", definition="Something else altogether", family="bones", source="x"),
        Entry(term="coccyx", definition="The 1th part of the body in a list", family="bones", source="y"),
    ]
    sources = {question.source for question in definition_questions([*entries(), *twice], seed=0)}
    assert sources == {f"doc{number}" for number in range(2, 8)}


def test_definitions_that_blanking_made_alike_are_not_asked() -> None:
    alike = [
        Entry(term=f"{bone} fracture", definition=f"A broken {bone}", family="bones", source=bone) for bone in BONES
    ]
    assert definition_questions(alike, seed=0, blank=True, max_blank=0.9) == []


def question(source: str, answer: int = 0) -> Question:
    return Question(question=f"q {source}", choices=("a", "b", "c", "d"), answer=answer, source=source)


def test_balancing_keeps_the_right_choice_right() -> None:
    questions = balance([question(str(number), answer=number % 4) for number in range(40)], seed=0)
    for item in questions:
        assert item.choices[item.answer] == "abcd"[int(item.source) % 4]
    assert Counter(item.answer for item in questions) == {0: 10, 1: 10, 2: 10, 3: 10}


def test_seen_and_unseen_are_apart_and_what_is_neither_is_left_out() -> None:
    whole = QuestionSet(name="terms", questions=tuple(question(name) for name in "abcde"), derived=True)
    seen, unseen = split_by_seen(whole, {"a", "b"}, {"c"})
    assert (seen.name, seen.seen, [item.source for item in seen.questions]) == ("terms_seen", True, ["a", "b"])
    assert (unseen.name, unseen.seen, [item.source for item in unseen.questions]) == ("terms_unseen", False, ["c"])
    with pytest.raises(CorpusError, match="'a'"):
        split_by_seen(whole, {"a"}, {"a"})


def test_a_limit_draws_by_the_seed_and_keeps_the_order() -> None:
    items = [question(str(number)) for number in range(50)]
    drawn = sample(items, 10, seed=1)
    assert len(drawn) == 10 and list(drawn) == sorted(drawn, key=items.index)
    assert drawn == sample(items, 10, seed=1) != sample(items, 10, seed=2)
    assert sample(items, None) == tuple(items) == sample(items, 99)
