"""Texts of questions that training text must not hold, and questions that are too short to be looked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile

from minigpt.corpus import dedup
from minigpt.types import Question, QuestionSet

# Words in a run that is compared with questions.
QUESTION_RUN = 13
# Mark of a blanked word in a question.
BLANK = "___"
# Most questions that may share a short fragment before it counts as a common phrase.
SHARED_BY = 2
# Fewest words of a whole question, from its first word to its question mark, that is looked for. Shorter ones stand in
# text that is no question, too.
SHORTEST_QUESTION = 6
# Question marks of Latin, Chinese and Japanese, Arabic, and Greek script.
MARKS = ("?", "？", "؟", "\u037e")
# Signs that may stand behind the question mark.
CLOSING = " \t\n\"'”’»›)]*_"

Words = tuple[str, ...]


def guarded_parts(questions: QuestionSet) -> Iterator[str]:
    """Yield the texts of a set's questions and right answers of which training text must not hold a run of words.

    The words of a template that all questions share are left out. A question with blanks gives the fragments between
    them, since no text holds a blank. A fragment shorter than a run counts as a whole, unless more than `SHARED_BY`
    questions have it: then it is a common phrase that gives nothing away.
    """
    for fragments, question in zip(_looked_for(questions), questions.questions, strict=True):
        yield from map(" ".join, fragments)
        answer = question.choices[question.answer]
        if len(dedup.words(answer)) >= QUESTION_RUN:
            yield answer


def short_questions(questions: QuestionSet) -> Iterator[Words]:
    """Yield the words of the questions that training text must not hold as a whole, because they have no longer part.

    Questions that a reader makes from its data are left out, as their definitions are guarded. So is what more than
    `SHARED_BY` questions ask alike: only their choices make such questions.
    """
    if questions.derived:
        return
    whole = [_whole(question) for question in questions.questions]
    times = Counter(whole)
    for fragments, tokens in zip(_looked_for(questions), whole, strict=True):
        if tokens and not _is_guarded(fragments) and times[tokens] <= SHARED_BY:
            yield tokens


def unguarded(questions: QuestionSet) -> int:
    """Count the questions that are not looked for in training text: those that are too short, or common phrases."""
    guarded = sum(map(_is_guarded, _looked_for(questions)))
    return len(questions.questions) - guarded - sum(1 for _ in short_questions(questions))


def _looked_for(questions: QuestionSet) -> list[list[Words]]:
    """Return the fragments of each question that are no common phrase, without the template that all share."""
    texts = [dedup.words(question.question) for question in questions.questions]
    start, end = (0, 0)
    if len(texts) > 1:
        start, end = _common_start(texts), _common_start([tokens[::-1] for tokens in texts])
    parts = [_fragments(tokens[start : len(tokens) - end]) for tokens in texts]
    shared = Counter(part for fragments in parts for part in set(fragments))
    return [
        [part for part in fragments if len(part) >= QUESTION_RUN or shared[part] <= SHARED_BY] for fragments in parts
    ]


def _is_guarded(fragments: Sequence[Words]) -> bool:
    """Return True if one of a question's fragments is long enough to be looked for."""
    return any(len(part) >= dedup.Overlap.SHORTEST for part in fragments)


def _whole(question: Question) -> Words:
    """Return the words of a text that is a question as a whole; none if it is no question, too short, or has blanks."""
    text = question.question.rstrip(CLOSING)
    tokens = tuple(dedup.words(text))
    # Signs of scripts without spaces are words here, and a few of them are no question yet.
    fewest = SHORTEST_QUESTION if len(text.split()) >= SHORTEST_QUESTION else dedup.Overlap.SHORTEST
    asks = text.endswith(MARKS) and BLANK not in text
    return tokens if asks and len(tokens) >= fewest else ()


def _fragments(tokens: Sequence[str]) -> list[Words]:
    """Return the runs of words between blanks."""
    runs = groupby(tokens, key=lambda token: BLANK in token)
    return [tuple(words) for blank, words in runs if not blank]


def _common_start(texts: Sequence[Sequence[str]]) -> int:
    """Return the number of first words that all texts have in common."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False)))
