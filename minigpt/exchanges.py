"""Records of what models wrote in answer to the same prompts, side by side, for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One prompt, its right answer, and what the models answered.

    Attributes:
        prompt: Text of the prompt or question.
        right: A right answer, or the constraints that a right one follows.
        answers: Answer of each model, by the stage of the report.
        won: True if only the specialist is right, False if only the parent is.
    """

    prompt: str
    right: str
    answers: Mapping[str, str]
    won: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskExchanges:
    """Answers of parent and specialist to one task or question set, counted, with some of those that differ.

    Attributes:
        task: Task that was measured.
        rule: What counts as right, in words.
        both: Prompts that both answer right.
        won: Prompts that only the specialist answers right.
        lost: Prompts that only the parent answers right.
        neither: Prompts that none answers right.
        shown: Some of those won and lost.
    """

    task: str
    rule: str
    both: int
    won: int
    lost: int
    neither: int
    shown: tuple[Exchange, ...] = ()
