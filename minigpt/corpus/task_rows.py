"""Rows of task files: a prompt with its right answers, its form and the constraints on its answer."""

from __future__ import annotations

from typing import Any

from minigpt.corpus.rows import Row, name_in, text_of, value_of
from minigpt.domain.tasks import TaskConfig, check_regex
from minigpt.errors import CorpusError, did_you_mean
from minigpt.types import Constraint, Prompt

# Checks of `minigpt.evaluation.scoring` by the kind of value that they need.
NUMBERS = frozenset({"sentences", "words_at_most", "words_at_least", "bullets", "lines"})
WORDS = frozenset({"contains", "avoids", "starts_with", "ends_with", "one_of"})
PLAIN = frozenset({"json", "lower_case", "upper_case", "number", "no_commas", "quoted"})


def prompt_of(row: Row, where: str, config: TaskConfig) -> Prompt:
    """Turn a row into a prompt.

    Args:
        row: The row.
        where: Place of the row, for error messages.
        config: The task's entry in the domain file, with the names of its columns.

    Raises:
        CorpusError: A field is missing or malformed, or the row has neither an answer nor a constraint.
    """
    text = text_of(value_of(row, config.columns.get("prompt", "prompt"), where, key="prompt"), where, key="prompt")
    if not text.strip():
        raise CorpusError(f"{where}: the prompt is empty.")
    answers = _answers(row, where, config)
    constraints = _constraints(_optional(row, where, config, "constraints"), where)
    if not answers and not constraints:
        raise CorpusError(f"{where}: no answer. Give answer, answers or constraints.")
    choices = _texts(_optional(row, where, config, "choices"), where, "choices") or config.choices
    if choices and answers and not set(answers) <= set(choices):
        raise CorpusError(f"{where}: the answer {answers[0]!r:.60} is none of the choices.")
    regex = str(_optional(row, where, config, "regex") or config.regex)
    try:
        check_regex(regex, where)
    except ValueError as error:
        raise CorpusError(f"{error}.") from None
    return Prompt(
        prompt=text.strip(),
        answers=answers,
        choices=choices,
        regex=regex,
        constraints=constraints,
        source=name_in(_optional(row, where, config, "source")),
        license=str(_optional(row, where, config, "license") or config.license),
    )


def _optional(row: Row, where: str, config: TaskConfig, key: str) -> Any:
    """Return a field, None if it is missing. A field that the domain file maps must exist."""
    return value_of(row, config.columns[key], where, key=key) if key in config.columns else row.get(key)


def _answers(row: Row, where: str, config: TaskConfig) -> tuple[str, ...]:
    """Return the right answers of a row, from `answers` or `answer`."""
    for key in ("answers", "answer"):
        if (value := _optional(row, where, config, key)) is not None:
            return _texts(value, where, key)
    return ()


def _texts(value: Any, where: str, key: str) -> tuple[str, ...]:
    """Return a text, a number, or a list of them as texts."""
    if value is None:
        return ()
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, (str, int, float)) and str(item).strip() for item in items):
        raise CorpusError(f"{where}: {key} must be a text or a list of texts, none of them empty.")
    return tuple(str(item).strip() for item in items)


def _constraints(value: Any, where: str) -> tuple[Constraint, ...]:
    """Return the constraints of a row: a list of objects with `kind` and, for most kinds, `value`."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) and "kind" in item for item in value):
        raise CorpusError(f'{where}: constraints must be a list such as [{{"kind": "sentences", "value": 2}}].')
    return tuple(_constraint(item, where) for item in value)


def _constraint(item: dict[str, Any], where: str) -> Constraint:
    """Return one constraint, checked."""
    kind, value = str(item["kind"]), item.get("value", "")
    known = NUMBERS | WORDS | PLAIN
    if kind not in known:
        raise CorpusError(f"{where}: there is no constraint {kind!r:.60}.{did_you_mean(kind, known)}")
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if kind in NUMBERS and not is_number:
        raise CorpusError(f"{where}: the constraint {kind} needs a whole number as its value.")
    if kind in WORDS and not (isinstance(value, str) and value.strip()):
        raise CorpusError(f"{where}: the constraint {kind} needs a text as its value.")
    return Constraint(kind=kind, value=value if kind in NUMBERS | WORDS else "")
