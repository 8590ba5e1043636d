"""Questions that training text must not hold, down to short ones, and those that are too short to be looked for."""

from __future__ import annotations

from collections import Counter

import pytest

from minigpt.corpus.guard import drop_overlap
from minigpt.corpus.guarded_questions import SHARED_BY, short_questions, unguarded
from minigpt.types import Document, Question, QuestionSet
from tests.support.mixed import prose

AORTA = "Which chamber pumps blood into the aorta?"


def exam(*texts: str, derived: bool = False) -> QuestionSet:
    questions = tuple(Question(question=text, choices=(f"a{n}", f"b{n}"), answer=0) for n, text in enumerate(texts))
    return QuestionSet(name="exam", questions=questions, derived=derived)


def is_kept(text: str, questions: QuestionSet) -> bool:
    document = Document(text=f"{prose('before', 30)} {text} {prose('after', 30)}", source="d")
    return bool(drop_overlap([document], (), [questions], Counter()))


LONGER = "Who first described how blood goes around in the whole human body?"


@pytest.mark.parametrize(
    ("question", "text", "kept"),
    [
        (AORTA, AORTA, False),
        (AORTA, "WHICH chamber pumps blood, into the aorta", False),
        (AORTA, "which chamber pumps blood into the lungs?", True),
        (AORTA, "Which chamber pumps blood", True),
        ("What does the left ventricle do?", "So what does the left ventricle do? It pumps.", False),
        ('"Is it the aorta or not?" ', "is it the aorta or not", False),
        ("What is the diagnosis here?", "He knows what is the diagnosis here.", True),  # five words
        ("Define the word aorta", "Define the word aorta", True),  # no question
        ("大动脉是什么？", "大动脉是什么？", True),  # seven signs
        ("哪个心室将血液泵入大动脉？", "哪个心室将血液泵入大动脉", False),
        ("Is ___ a vessel?", "Is the a vessel?", True),
    ],
)
def test_a_short_question_is_looked_for_as_a_whole(question: str, text: str, kept: bool) -> None:
    assert is_kept(text, exam(question, LONGER)) is kept
    assert is_kept(text, exam(question)) is kept


def test_what_a_shared_template_leaves_too_short_is_looked_for_with_it() -> None:
    template = "Which of the vessels named in the list of all the vessels below is the {}?"
    questions = exam(template.format("aorta"), template.format("vena cava"))
    assert not is_kept(template.format("aorta"), questions)
    assert is_kept(template.format("carotid"), questions)


def test_what_many_questions_ask_alike_is_a_common_phrase() -> None:
    common = "Which of the statements is true?"
    assert not is_kept(common, exam(*[common] * SHARED_BY, LONGER))
    many = exam(*[common] * (SHARED_BY + 1), LONGER)
    assert is_kept(common, many) and unguarded(many) == SHARED_BY + 1


def test_questions_made_from_text_are_guarded_by_their_definitions() -> None:
    glossary = exam("What does aorta mean?", "What does vein mean?", derived=True)
    assert list(short_questions(glossary)) == []
    assert is_kept("What does aorta mean?", glossary)


def test_questions_that_are_not_looked_for_are_counted() -> None:
    assert unguarded(exam(AORTA, LONGER, "Is it hypertension?", "Aorta:", "Define the word aorta")) == 3
    assert unguarded(exam()) == 0
