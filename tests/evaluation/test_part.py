"""A part of a suite: whole documents, the same for every model, and comparisons on that part alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minigpt.errors import MiniGPTError
from minigpt.evaluation import ItemScores, QuestionItems, Suite, TextItems, summarize
from minigpt.evaluation.part import FEWEST, items_of_part, part_of
from minigpt.types import Document, Question, QuestionSet

DOCUMENTS = tuple(
    Document(text=f"Passage {passage} of {number}. " + "x" * (7 * number), source=f"doc{number}")
    for number in range(60)
    for passage in range(3)
)
QUESTIONS = tuple(
    Question(question=f"Number {number}?", choices=("a", "b", "c", "d")[: 2 + number % 3], answer=number % 2)
    for number in range(90)
)
SUITE = Suite(
    texts={"field": DOCUMENTS, "short": DOCUMENTS[:21]},
    questions={"field/terms": QuestionSet(name="terms", role="test", questions=QUESTIONS)},
)


def scores(suite: Suite, factor: float) -> ItemScores:
    """Scores of a made-up model: bits by the length of a document, right answers by the number in a question."""
    texts = {}
    for task, documents in suite.texts.items():
        sizes: dict[str, int] = {}
        for document in documents:
            sizes[document.source] = sizes.get(document.source, 0) + len(document.text.encode())
        bits = tuple(factor * size * (1 + place % 5) for place, size in enumerate(sizes.values()))
        bytes_ = tuple(sizes.values())
        texts[task] = TextItems(keys=tuple(sizes), bits=bits, bytes=bytes_, words=bytes_, tokens=bytes_)
    questions = {}
    for task, asked in suite.questions.items():
        picks = tuple(int(int(item.question[7:-1]) % 7 < 4 * factor) for item in asked.questions)
        questions[task] = QuestionItems(
            keys=tuple(item.question for item in asked.questions),
            answers=tuple(item.answer for item in asked.questions),
            picks=picks,
            picks_norm=picks,
            chance=sum(1 / len(item.choices) for item in asked.questions) / len(picks),
        )
    return ItemScores(texts=texts, questions=questions)


def test_a_part_holds_whole_documents_and_about_its_share() -> None:
    part = part_of(SUITE, 0.33)
    kept = {document.source for document in part.texts["field"]}
    assert part.texts["field"] == tuple(document for document in DOCUMENTS if document.source in kept)
    size = sum(len(document.text) for document in part.texts["field"]) / sum(len(item.text) for item in DOCUMENTS)
    assert 0.33 <= size < 0.33 + 0.04
    asked = part.questions["field/terms"].questions
    assert len(asked) == 30 and set(asked) < set(QUESTIONS)


def test_too_few_documents_or_questions_are_not_cut_further() -> None:
    part = part_of(SUITE, 0.01)
    assert len({document.source for document in part.texts["field"]}) == FEWEST
    assert part.texts["short"] == SUITE.texts["short"], "seven documents are fewer than the fewest"
    assert len(part.questions["field/terms"].questions) == FEWEST


def test_a_smaller_part_lies_within_a_larger_one_and_the_whole_is_the_suite() -> None:
    small, large = part_of(SUITE, 0.3), part_of(SUITE, 0.6)
    assert set(small.texts["field"]) < set(large.texts["field"])
    assert set(small.questions["field/terms"].questions) < set(large.questions["field/terms"].questions)
    assert part_of(SUITE, 1.0) is SUITE
    assert part_of(SUITE, 0.3) == small != part_of(SUITE, 0.3, seed=1)


def test_differences_are_those_of_models_that_were_measured_on_the_part_alone() -> None:
    part = part_of(SUITE, 0.33)
    parent = scores(SUITE, 0.5)
    pruned = replace(scores(part, 0.9))
    # By another way: the parent's items of the part, picked by hand.
    keys = pruned.texts["field"].keys
    rows = [parent.texts["field"].keys.index(key) for key in keys]
    by_hand = replace(
        parent.texts["field"],
        keys=keys,
        **{name: tuple(getattr(parent.texts["field"], name)[row] for row in rows) for name in ("bits", "bytes")},
        words=tuple(parent.texts["field"].words[row] for row in rows),
        tokens=tuple(parent.texts["field"].tokens[row] for row in rows),
    )
    common = items_of_part(parent, pruned)
    assert common.texts["field"] == by_hand
    assert common.questions["field/terms"].chance == pruned.questions["field/terms"].chance
    found = {(metric.task, metric.metric): metric for metric in summarize(pruned, parent=common)}
    metric = found["field", "bits_per_byte"]
    difference = metric.paired_difference_vs_parent
    assert difference is not None
    expected = pruned.texts["field"].bits_per_byte - by_hand.bits_per_byte
    assert difference.value == pytest.approx(expected)
    assert abs(expected - (pruned.texts["field"].bits_per_byte - parent.texts["field"].bits_per_byte)) > 1e-3
    assert metric.n == len(keys) < len(parent.texts["field"].keys)
    right = found["field/terms", "accuracy"]
    assert right.n == 30 and right.paired_difference_vs_parent is not None


def test_the_whole_suite_is_its_own_part() -> None:
    parent = scores(SUITE, 0.5)
    assert items_of_part(parent, scores(SUITE, 0.9)) == parent


def test_other_documents_are_still_refused() -> None:
    parent = scores(SUITE, 0.5)
    strange = replace(parent.texts["field"], keys=("other", *parent.texts["field"].keys[1:]))
    pruned = replace(parent, texts={**parent.texts, "field": strange})
    with pytest.raises(MiniGPTError, match="other items"):
        summarize(pruned, parent=items_of_part(parent, pruned))
