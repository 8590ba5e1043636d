"""Measure a language model on held-out text, multiple-choice questions and free answers.

Every document and every question keeps its own score, so that two models can be compared in pairs. Only
`minigpt.evaluation.metrics` imports the library `evaluate`, because that takes seconds.
"""

from __future__ import annotations

from minigpt.evaluation.items import (
    AnswerItems,
    ItemScores,
    QuestionItems,
    RecitationItems,
    TextItems,
    load_scores,
    save_scores,
)
from minigpt.evaluation.opening import Opening, choose_opening
from minigpt.evaluation.recitation import recite
from minigpt.evaluation.run import evaluate, question_scores, text_bits
from minigpt.evaluation.suite import Suite, suite_for
from minigpt.evaluation.summary import summarize

__all__ = [
    "AnswerItems",
    "ItemScores",
    "Opening",
    "QuestionItems",
    "RecitationItems",
    "Suite",
    "TextItems",
    "choose_opening",
    "evaluate",
    "load_scores",
    "question_scores",
    "recite",
    "save_scores",
    "suite_for",
    "summarize",
    "text_bits",
]
