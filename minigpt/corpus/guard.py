"""Guards that keep test questions and held-out text away from training text."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from minigpt.corpus import dedup
from minigpt.corpus.guarded_questions import QUESTION_RUN, SHORTEST_QUESTION, guarded_parts, short_questions
from minigpt.corpus.questions import split_by_seen
from minigpt.types import Document, Question, QuestionSet

# Words in a run that is compared with held-out text.
TEXT_RUN = 8
# Share of such runs from which a passage overlaps held-out text.
TEXT_SHARE = 0.5
# Documents that are compared at once.
TOGETHER = 1024


class Guard:
    """Finder of passages that overlap guarded text or questions.

    A passage overlaps if it holds at least `share` of a guarded passage's runs of 8 words, if at least `share` of its
    own runs come from guarded passages, if it holds 13 words in a row of a question, or if it holds a whole question.

    Args:
        guarded: Passages that must not be given away.
        questions: Question sets that must not be given away.
        share: Share of runs from which a passage overlaps a guarded one.
    """

    def __init__(self, guarded: Iterable[Document], questions: Iterable[QuestionSet], *, share: float) -> None:
        self.text_rule = dedup.Overlap((document.text for document in guarded), size=TEXT_RUN, share=share)
        sets = list(questions)
        parts = (part for question_set in sets for part in guarded_parts(question_set))
        self.question_rule = dedup.Overlap(parts, size=QUESTION_RUN, share=0)
        whole = [" ".join(tokens) for question_set in sets for tokens in short_questions(question_set)]
        self.whole_rule = dedup.Overlap(whole, size=sys.maxsize, share=0, shortest=SHORTEST_QUESTION)

    def keep(self, documents: Sequence[Document], tally: Counter[str]) -> list[Document]:
        """Return the passages that do not overlap, and count the others as `overlaps_heldout` or `_questions`."""
        kept = []
        for start in range(0, len(documents), TOGETHER):
            batch = documents[start : start + TOGETHER]
            hashed = dedup.hash_texts(document.text for document in batch)
            in_questions = self.question_rule.matches(hashed) | self.whole_rule.matches(hashed)
            matches = zip(batch, self.text_rule.matches(hashed), in_questions, strict=True)
            for document, in_text, in_question in matches:
                if in_text or in_question:
                    tally["overlaps_heldout" if in_text else "overlaps_questions"] += 1
                else:
                    kept.append(document)
        return kept


def drop_overlap(
    documents: list[Document],
    guarded: Sequence[Document],
    questions: Iterable[QuestionSet],
    tally: Counter[str],
    *,
    share: float = TEXT_SHARE,
) -> list[Document]:
    """Drop passages that overlap guarded text or questions, by the rules of :class:`Guard`.

    Args:
        documents: Passages to choose from.
        guarded: Passages that must not be given away.
        questions: Question sets that must not be given away.
        tally: Counts; `overlaps_heldout` and `overlaps_questions` are added.
        share: Share of runs from which a passage overlaps a guarded one.

    Returns:
        The passages that do not overlap.
    """
    return Guard(guarded, questions, share=share).keep(documents, tally)


def drop_dev_leaks(question_sets: Sequence[QuestionSet], tally: Counter[str]) -> list[QuestionSet]:
    """Drop repeated and ambiguous questions from each set, and questions of test sets from dev sets.

    Args:
        question_sets: All question sets of a domain.
        tally: Counts; `dropped_questions` is added.

    Returns:
        The sets that still have questions.
    """
    tests = {_key(question) for tested in question_sets if tested.role == "test" for question in tested.questions}
    remaining = []
    for questions in question_sets:
        keys: set[tuple[str, ...]] = set(tests) if questions.role == "dev" else set()
        kept = []
        for question in drop_ambiguous(questions).questions:
            if _key(question) not in keys:
                kept.append(question)
                keys.add(_key(question))
        tally["dropped_questions"] += len(questions.questions) - len(kept)
        if kept:
            remaining.append(replace(questions, questions=tuple(kept)))
    return remaining


def _key(question: Question) -> tuple[str, ...]:
    """Return the words of a question and its choices in a fixed order: equal for repeated questions."""
    return (_question_words(question), *sorted(question.choices))


def _question_words(question: Question) -> str:
    """Return a question's text without case and punctuation."""
    return " ".join(dedup.words(question.question)) or question.question


def drop_ambiguous(questions: QuestionSet) -> QuestionSet:
    """Drop derived questions with two right choices: blanks can make the definitions of two terms equal."""
    if not questions.derived:
        return questions
    answers: dict[str, set[str]] = {}
    for question in questions.questions:
        answers.setdefault(_question_words(question), set()).add(question.choices[question.answer])
    kept = tuple(q for q in questions.questions if len(answers[_question_words(q)] & set(q.choices)) == 1)
    return replace(questions, questions=kept)


def from_corpus(questions: QuestionSet) -> bool:
    """Return True if the questions were made from documents of the corpus, which they name."""
    return questions.derived and any(question.source for question in questions.questions)


def guarded_questions(questions: QuestionSet, heldout: Iterable[Document]) -> QuestionSet:
    """Return the questions of a set whose text must not be trained on.

    These are all questions, or, where they were made from the corpus, those on the documents in `heldout`, which holds
    all documents that only measure.
    """
    if not from_corpus(questions):
        return questions
    sources = {document.source for document in heldout}
    kept = tuple(question for question in questions.questions if question.source in sources)
    return replace(questions, questions=kept)


def split_sets_by_seen(
    question_sets: Iterable[QuestionSet],
    train: Iterable[Document],
    heldout: Iterable[Document],
    *,
    limits: Mapping[str, int | None],
    seed: int,
) -> Iterable[QuestionSet]:
    """Divide sets made from the corpus into `<name>`, on held-out documents, and `<name>_seen`, on training documents.

    Args:
        question_sets: All question sets of a domain. Sets that were not made from the corpus stay as they are.
        train: Training documents.
        heldout: Documents that only measure: held-out ones, and those of other sources.
        limits: Number of questions to draw for each part of a set, by the set's name; None for all.
        seed: Seed of the draw.

    Yields:
        The sets and parts that have questions.
    """
    train_sources, heldout_sources = {document.source for document in train}, {document.source for document in heldout}
    for questions in question_sets:
        if not from_corpus(questions):
            yield questions
            continue
        limit = limits.get(questions.name)
        seen, unseen = split_by_seen(questions, train_sources, heldout_sources, limit=limit, seed=seed)
        yield from (part for part in (replace(unseen, name=questions.name), seen) if part.questions)
