"""Loops of an evaluation: one for each that comes, under its title, with its size by hand."""

from __future__ import annotations

from minigpt import assets
from minigpt.evaluation import evaluate
from minigpt.evaluation.loops import loops_of
from minigpt.evaluation.suite import Suite
from minigpt.progress import SILENT
from minigpt.progress.loops import Looped
from minigpt.types import AnswerTask, Document, Prompt, Question, QuestionSet
from tests.support.worlds import World


def suite() -> Suite:
    question = Question(question="Which?", choices=("ab", "cde"), answer=0)
    prompts = tuple(Prompt(prompt=text, answers=("x",)) for text in ("p", "q"))
    return Suite(
        texts={"words": (Document(text="é" * 10, source="a"), Document(text="b" * 5, source="b"))},
        questions={"words/next": QuestionSet(name="next", questions=(question,))},
        answers={"words/short": AnswerTask(name="short", prompts=prompts, max_tokens=3)},
        dev=(Document(text="dev", source="c"),),
    )


def test_sizes_are_bytes_read_and_tokens_written() -> None:
    loops = {loop.name: (loop.kinds, loop.weight) for loop in loops_of(suite())}
    assert loops == {
        "Choosing the opening": (("opening",), 1.0),
        "Reading words": (("read",), 25.0),
        "Asking words/next": (("ask", "read"), float(len("Which? ab cde"))),
        "Answering words/short": (("answer",), 6.0),
    }


def test_loops_come_in_this_order_though_a_tokenizer_may_offer_one_opening_only(world: World) -> None:
    reporter = Looped(SILENT, loops_of(suite()))
    evaluate(assets.load_model(world.base), assets.load_tokenizer(world.base), suite(), reporter=reporter)
    came = [one.piece.name for one in reporter.pieces.finished]
    assert came in ([loop.name for loop in loops_of(suite())], [loop.name for loop in loops_of(suite())][1:])
    assert reporter.pieces.left() == 0.0
