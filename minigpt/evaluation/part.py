"""A part of a suite, for a quick look at a model, and the scores of another model on the same part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minigpt.evaluation.items import ItemScores, QuestionItems, TextItems
from minigpt.evaluation.suite import Suite, sample_questions
from minigpt.files import fingerprint
from minigpt.types import Document

# Fewest documents and questions of a part; a smaller number gives no verdict.
FEWEST = 10


def part_of(suite: Suite, share: float, *, seed: int = 0) -> Suite:
    """Take a share of the text and of the questions of every task.

    Documents are taken whole, so that the scores of a document are those that another model has for it. There are at
    least `FEWEST` of them, and as many questions, where the suite has so many.

    Args:
        suite: Texts and questions by task name.
        share: Part of the bytes and of the questions; with 1 the suite stays as it is.
        seed: Seed of the sample.
    """
    if not share < 1:
        return suite
    return replace(
        suite,
        texts={task: _documents(documents, share, seed) for task, documents in suite.texts.items()},
        questions={
            task: sample_questions(questions, max(FEWEST, math.ceil(share * len(questions.questions))), seed=seed)
            for task, questions in suite.questions.items()
        },
    )


def _documents(documents: Sequence[Document], share: float, seed: int) -> tuple[Document, ...]:
    """Take whole documents in the order of their hashes, until they hold the share of the bytes."""
    sizes: dict[str, int] = {}
    for document in documents:
        sizes[document.source] = sizes.get(document.source, 0) + len(document.text.encode())
    wanted, size = share * sum(sizes.values()), 0
    sources: set[str] = set()
    for source in sorted(sizes, key=lambda name: fingerprint(seed, name)):
        if size >= wanted and len(sources) >= FEWEST:
            break
        sources.add(source)
        size += sizes[source]
    return tuple(document for document in documents if document.source in sources)


def items_of_part(scores: ItemScores, part: ItemScores) -> ItemScores:
    """Take the scores of the documents and questions that another model was measured on, in that model's order.

    A task that lacks one of them stays as it is, so that a comparison of different items is still refused.

    Args:
        scores: Scores of a model on a whole suite.
        part: Scores of another model on a part of it.
    """
    return replace(
        scores,
        texts={task: _texts(items, part.texts.get(task)) for task, items in scores.texts.items()},
        questions={task: _questions(items, part.questions.get(task)) for task, items in scores.questions.items()},
    )


def _texts(items: TextItems, part: TextItems | None) -> TextItems:
    """Take the documents of a part."""
    rows = _rows(items.keys, part.keys if part is not None else items.keys)
    names = ("keys", "bits", "bytes", "words", "tokens")
    return items if rows is None else replace(items, **_columns(items, names, rows))


def _questions(items: QuestionItems, part: QuestionItems | None) -> QuestionItems:
    """Take the questions of a part, with the part's score of guessing."""
    rows = _rows(items.keys, part.keys if part is not None else items.keys)
    if rows is None or part is None:
        return items
    return replace(items, chance=part.chance, **_columns(items, ("keys", "answers", "picks", "picks_norm"), rows))


def _rows(keys: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Find the rows of the wanted keys; None if one of them is missing."""
    row_of = {key: row for row, key in enumerate(keys)}
    return [row_of[key] for key in wanted] if row_of.keys() >= set(wanted) else None


def _columns(items: TextItems | QuestionItems, names: Sequence[str], rows: Sequence[int]) -> Mapping[str, Any]:
    """Take some rows of the columns of a record."""
    return {name: tuple(getattr(items, name)[row] for row in rows) for name in names}
