"""Work of a build's stages, from sizes alone."""

from __future__ import annotations

import pytest

from minigpt.evaluation import Suite
from minigpt.healing import Recipe
from minigpt.pipeline.outlook import checkpoint_bytes, reading, tokens_of, training
from minigpt.types import Document, Question, QuestionSet


def test_a_training_step_is_three_passes_and_one_of_the_teacher() -> None:
    recipe = Recipe(steps=10, tokens_per_step=256, window=64, learning_rate=1e-3, distill=1.0)
    work = training(recipe, 100.0, 400.0, "Healing")
    assert work is not None
    assert work.per_item == pytest.approx(256 * (3 * 100 + 400))
    assert work.operations == pytest.approx(10 * work.per_item)
    alone = training(recipe, 100.0, 0.0, "Tuning", steps=4)
    assert alone is not None
    assert alone.operations == pytest.approx(4 * 256 * 300)


def test_without_known_operations_there_is_no_work() -> None:
    recipe = Recipe(steps=10, tokens_per_step=256, learning_rate=1e-3)
    assert training(recipe, 0.0, 0.0, "Healing") is None
    assert reading(0.0, 100.0) is None


def test_tokens_are_bytes_by_the_ratio_of_the_first_texts() -> None:
    document = Document(text="ab " * 20, source="a")
    question = Question(question="x" * 9, choices=("y" * 4, "z" * 5), answer=0)
    suite = Suite(texts={"words": (document,)}, questions={"q": QuestionSet(name="q", questions=(question,))})
    assert tokens_of(suite, lambda text: len(text) // 2) == pytest.approx(30 + 10)
    assert tokens_of(Suite(), len) == 0.0


def test_a_checkpoint_holds_four_numbers_for_each_weight() -> None:
    assert checkpoint_bytes(1000) == 16_000
