"""Keeps what is asked and what is held out away from what is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, takewhile

from minigpt.corpus import dedup
from minigpt.corpus.questions import split_by_seen
from minigpt.types import Document, Question, QuestionSet

TEXT_RUN, TEXT_SHARE = 8, 0.5
QUESTION_RUN = 13
BLANK = "___"
SHARED_BY = 2
TOGETHER = 1024
"""Documents that are compared at once."""


def without_overlap(
    documents: list[Document],
    guarded: Sequence[Document],
    questions: Iterable[QuestionSet],
    tally: Counter[str],
    *,
    share: float = TEXT_SHARE,
) -> list[Document]:
    """Drop passages that hold `share` of a guarded passage's 8-grams or consist of them to `share`.

    And those that hold a 13-gram of a question.
    """
    text = dedup.Overlap((document.text for document in guarded), size=TEXT_RUN, share=share)
    asked = dedup.Overlap((body for found in questions for body in _bodies(found)), size=QUESTION_RUN, share=0)
    kept = []
    for start in range(0, len(documents), TOGETHER):
        some = documents[start : start + TOGETHER]
        read = dedup.hashed(document.text for document in some)
        for document, held, question in zip(some, text.among(read), asked.among(read), strict=True):
            if held or question:
                tally["overlaps_heldout" if held else "overlaps_questions"] += 1
            else:
                kept.append(document)
    return kept


def _bodies(found: QuestionSet) -> Iterable[str]:
    """What the questions say, and what their answers say, without the words of a template that all share.

    A question with blanks is its fragments between them: no text holds a blank. A fragment shorter than a run counts
    as a whole, unless more than `SHARED_BY` questions have it: then it is a turn of phrase that gives nothing away.
    """
    asked = [dedup.words(question.question) for question in found.questions]
    start, end = (0, 0) if len(asked) < 2 else (_shared(asked), _shared([tokens[::-1] for tokens in asked]))
    parts = [_fragments(tokens[start : len(tokens) - end]) for tokens in asked]
    shared = Counter(part for fragments in parts for part in set(fragments))
    for fragments, question in zip(parts, found.questions, strict=True):
        for part in fragments:
            if len(part) >= QUESTION_RUN or shared[part] <= SHARED_BY:
                yield " ".join(part)
        answer = question.choices[question.answer]
        if len(dedup.words(answer)) >= QUESTION_RUN:
            yield answer


def _fragments(tokens: Sequence[str]) -> list[tuple[str, ...]]:
    """The runs of words between blanks."""
    runs = groupby(tokens, key=lambda token: BLANK in token)
    return [tuple(words) for blank, words in runs if not blank]


def _shared(lists: Sequence[Sequence[str]]) -> int:
    """How many first words all lists have in common."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*lists, strict=False)))


def without_dev_leaks(questions: Sequence[QuestionSet], tally: Counter[str]) -> list[QuestionSet]:
    """Drop repeated and ambiguous questions from each set, and from dev sets those that stand in a test set."""
    tests = {_key(question) for found in questions if found.role == "test" for question in found.questions}
    sets = []
    for found in questions:
        seen: set[tuple[str, ...]] = set(tests) if found.role == "dev" else set()
        kept = []
        for question in without_ambiguous(found).questions:
            if _key(question) not in seen:
                kept.append(question)
                seen.add(_key(question))
        tally["dropped_questions"] += len(found.questions) - len(kept)
        if kept:
            sets.append(replace(found, questions=tuple(kept)))
    return sets


def _key(question: Question) -> tuple[str, ...]:
    return (_asked(question), *sorted(question.choices))


def _asked(question: Question) -> str:
    return " ".join(dedup.words(question.question)) or question.question


def without_ambiguous(found: QuestionSet) -> QuestionSet:
    """Drop derived questions with two right choices: blanks can make the definitions of two terms equal."""
    if not found.derived:
        return found
    answers: dict[str, set[str]] = {}
    for question in found.questions:
        answers.setdefault(_asked(question), set()).add(question.choices[question.answer])
    kept = tuple(q for q in found.questions if len(answers[_asked(q)] & set(q.choices)) == 1)
    return replace(found, questions=kept)


def from_corpus(found: QuestionSet) -> bool:
    """Whether the questions are made from documents of the corpus, which they name."""
    return found.derived and any(question.source for question in found.questions)


def tested(found: QuestionSet, heldout: Iterable[Document]) -> QuestionSet:
    """The questions whose text must not be trained on: of sets derived from the corpus those on held-out documents."""
    if not from_corpus(found):
        return found
    sources = {document.source for document in heldout}
    return replace(found, questions=tuple(question for question in found.questions if question.source in sources))


def by_seen(
    questions: Iterable[QuestionSet],
    train: Iterable[Document],
    heldout: Iterable[Document],
    *,
    limits: Mapping[str, int | None],
    seed: int,
) -> Iterable[QuestionSet]:
    """Part derived sets into `<name>`, on held-out documents, and `<name>_seen`, on training documents.

    `limits` holds for each part of the set it names. Questions that name no document have no such parts.
    """
    trained, held = {document.source for document in train}, {document.source for document in heldout}
    for found in questions:
        if not from_corpus(found):
            yield found
            continue
        seen, unseen = split_by_seen(found, trained, held, limit=limits.get(found.name), seed=seed)
        yield from (half for half in (replace(unseen, name=found.name), seen) if half.questions)
