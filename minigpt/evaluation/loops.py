"""Loops of an evaluation: their titles, and the work that says how long one takes beside others of its kind."""

from __future__ import annotations

from minigpt.evaluation.answers import answering
from minigpt.evaluation.opening import OPENING
from minigpt.evaluation.suite import Suite
from minigpt.progress.pieces import Planned
from minigpt.progress.rates import Work


def reading(task: str) -> str:
    """Return the title of the loop that reads the texts of a task."""
    return f"Reading {task}"


def asking(task: str) -> str:
    """Return the title of the loop that asks the questions of a task."""
    return f"Asking {task}"


def loops_of(suite: Suite) -> list[Planned]:
    """Return the loops of an evaluation in their order.

    What is read counts by its bytes, and what is written by its tokens, at most; the one says nothing about the other.
    Questions are read like texts.

    Args:
        suite: the texts, questions and prompts.
    """
    loops = [_loop(OPENING, "opening", 1.0)] if suite.dev else []
    for task, documents in suite.texts.items():
        loops.append(_loop(reading(task), "read", sum(len(document.text.encode()) for document in documents)))
    for task, questions in suite.questions.items():
        size = sum(len(" ".join((one.question, *one.choices)).encode()) for one in questions.questions)
        loops.append(_loop(asking(task), "ask", size, "read"))
    for task, answers in suite.answers.items():
        loops.append(_loop(answering(task), "answer", len(answers.prompts) * answers.max_tokens))
    return loops


def _loop(title: str, kind: str, size: float, *others: str) -> Planned:
    """Return a loop of one kind, whose time is proportional to a size; other kinds stand for it until it is known."""
    return Planned(name=title, kinds=(kind, *others), works=(Work(kind="evaluate", operations=float(size)),))
