"""Answers won and lost: prompts and questions that only one of parent and specialist answers right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from minigpt.evaluation.items import AnswerItems, ItemScores, QuestionItems
from minigpt.evaluation.suite import Suite
from minigpt.exchanges import Exchange, TaskExchanges
from minigpt.types import AnswerTask, Prompt, Question

# Columns that say whether an answer is right, the first that a task has, with the lowest score that counts as right.
RIGHT = {
    "exact_match": (1.0, "equal to a right answer"),
    "instructions_followed": (1.0, "all constraints followed"),
    "rouge_l": (0.5, "ROUGE-L of 0.5 or more"),
    "token_f1": (0.5, "token F1 of 0.5 or more"),
}
# The specialist and the parent in a record of answers.
OURS, PARENT = "healed", "parent"


def exchanges(
    suite: Suite, scores: Mapping[str, ItemScores], *, ours: str = OURS, shown: int = 2
) -> tuple[TaskExchanges, ...]:
    """Count the prompts and questions that only one of parent and specialist answers right, and show some.

    Questions on text that was trained on are left out.

    Args:
        suite: The tasks that were measured.
        scores: Scores of `parent`, of the specialist, and of other models to show beside them, by stage.
        ours: Stage of the specialist.
        shown: Prompts to show of those won and of those lost, for each task.
    """
    results = []
    for name, task in suite.answers.items():
        rows = {stage: items.answers[name] for stage, items in scores.items() if name in items.answers}
        if {PARENT, ours} <= set(rows) and (column := _column(rows[ours])):
            results.append(_of_task(name, task, rows, ours, column, shown))
    for name, questions in suite.questions.items():
        picked = {stage: items.questions[name] for stage, items in scores.items() if name in items.questions}
        if {PARENT, ours} <= set(picked) and not questions.seen:
            results.append(_of_questions(name, questions.questions, picked, ours, shown))
    return tuple(results)


def _column(items: AnswerItems) -> str | None:
    """Find the column that says whether an answer is right."""
    return next((name for name in RIGHT if name in items.columns), None)


def _of_task(
    name: str, task: AnswerTask, rows: Mapping[str, AnswerItems], ours: str, column: str, shown: int
) -> TaskExchanges:
    """Count and show the answers to one task."""
    limit, rule = RIGHT[column]
    right = {stage: [score >= limit for score in items.columns[column]] for stage, items in rows.items()}

    def exchange(index: int, won: bool) -> Exchange:
        answers = {stage: items.texts[index] for stage, items in rows.items()}
        return Exchange(
            prompt=task.prompts[index].prompt, right=right_text(task.prompts[index]), answers=answers, won=won
        )

    return _counted(name, rule, right[PARENT], right[ours], exchange, shown)


def right_text(item: Prompt) -> str:
    """Write what would be right: an answer, or the constraints."""
    return (
        item.answers[0]
        if item.answers
        else "; ".join(f"{entry.kind.replace('_', ' ')} {entry.value}".strip() for entry in item.constraints)
    )


def _of_questions(
    name: str, questions: Sequence[Question], rows: Mapping[str, QuestionItems], ours: str, shown: int
) -> TaskExchanges:
    """Count and show the choices of one question set, by likelihood for each byte."""

    def exchange(index: int, won: bool) -> Exchange:
        question = questions[index]
        answers = {stage: question.choices[items.picks_norm[index]] for stage, items in rows.items()}
        return Exchange(prompt=question.question, right=question.choices[question.answer], answers=answers, won=won)

    right = {stage: [bool(value) for value in items.correct_norm] for stage, items in rows.items()}
    return _counted(name, "the likeliest choice, for each byte", right[PARENT], right[ours], exchange, shown)


def _counted(
    name: str,
    rule: str,
    parent: Sequence[bool],
    ours: Sequence[bool],
    exchange: Callable[[int, bool], Exchange],
    shown: int,
) -> TaskExchanges:
    """Count the four cases, and show the first of those won and lost; prompts stand in the order of their hashes."""
    cases = list(zip(parent, ours, strict=True))
    places = {case: [index for index, other in enumerate(cases) if other == case] for case in set(cases)}
    won, lost = places.get((False, True), []), places.get((True, False), [])
    return TaskExchanges(
        task=name,
        rule=rule,
        both=cases.count((True, True)),
        won=len(won),
        lost=len(lost),
        neither=cases.count((False, False)),
        shown=tuple(_first(exchange, won, lost, shown)),
    )


def _first(
    exchange: Callable[[int, bool], Exchange], won: Sequence[int], lost: Sequence[int], shown: int
) -> Iterator[Exchange]:
    """Yield the first prompts won and the first lost."""
    yield from (exchange(index, True) for index in won[:shown])
    yield from (exchange(index, False) for index in lost[:shown])
