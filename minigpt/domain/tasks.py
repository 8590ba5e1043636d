"""Tasks with free answers in a domain file: where their prompts come from, and how answers are scored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from minigpt.domain.checks import TEXT_TASKS, source_problems
from minigpt.errors import did_you_mean

# Rules that make prompts from the passages of a corpus (`minigpt.corpus.task_rules`), and the metrics of each.
RULE_METRICS: Mapping[str, tuple[str, ...]] = {
    "kind": ("exact_match", "label_f1"),
    "find_term": ("exact_match", "token_f1"),
    "define": ("token_f1", "rouge_l"),
    "heading": ("token_f1", "rouge_l"),
    "missing_word": ("exact_match", "token_f1"),
    "quote": ("exact_match", "token_f1"),
}
# Metrics that a task may name; how many answers have the right form is measured wherever there is a form.
ANSWER_METRICS = ("exact_match", "token_f1", "label_f1", "rouge_l")
COLUMNS = frozenset({"prompt", "answer", "answers", "choices", "regex", "constraints", "source", "license"})
# Longest answer that a task may ask for, and most examples.
LONGEST, MOST_SHOTS = 512, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig:
    """One task with free answers: made from the corpus by a `rule`, or read from `file` or `hub`.

    `file`, `hub`, `revision`, `subset` and `hub_split` mean what they mean in :class:`SourceConfig`.

    Attributes:
        name: Name of the task.
        rule: Rule that makes prompts from passages: `kind`, `find_term`, `define`, `heading`, `missing_word` or
            `quote`. Those from training text are trained on, and those from held-out text measure.
        labels: Label of each source of text, for the rule `kind`: the beginning of its documents' names and its name
            for people.
        columns: Column of the data for each of `prompt`, `answer` or `answers`, `choices`, `regex`, `constraints`,
            `source` and `license`.
        choices: Labels of which every answer must be one, where the rows name none.
        regex: Pattern that every whole answer must match, where the rows name none.
        metrics: Metrics: `exact_match`, `token_f1`, `label_f1`, `rouge_l`. Empty for those that suit the task.
        max_tokens: Longest answer in tokens.
        shots: Number of training prompts shown before each prompt, with their answers.
        chat: True to put prompts into the model's chat template, where it has one. An answer then ends where the model
            ends it, and otherwise at the end of its line.
        split: Use of the rows: `heldout` only measures, `train` is only trained on, and `auto` divides them by document
            where they name one of the corpus, and otherwise one in three measures.
        per_document: Number of prompts to measure on that a rule makes of one document. Intervals take prompts for
            independent, which those of one document are not quite.
        license: License of the prompts, if their rows do not name one.
        citation: Text that cites the task.
        note: Explanation for the reader of the report.
        online: True if the task is read only after :func:`with_online`.
        limit: Number of prompts to draw for measuring.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    name: str
    rule: Literal["kind", "find_term", "define", "heading", "missing_word", "quote"] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    file: str | None = None
    hub: str | None = None
    revision: str | None = None
    subset: str | None = None
    hub_split: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    regex: str = ""
    metrics: tuple[Literal["exact_match", "token_f1", "label_f1", "rouge_l"], ...] = ()
    max_tokens: int = 24
    shots: int = 2
    chat: bool = False
    split: Literal["auto", "train", "heldout"] = "auto"
    per_document: int = 1
    license: str = "unknown"
    citation: str = ""
    note: str = ""
    online: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if problem := next(source_problems(self.name, None), None):
            raise ValueError(problem)
        if self.name in TEXT_TASKS:
            raise ValueError(f"a task cannot be called {self.name!r}, the name of a text in reports; rename it")
        self._check_origin()
        self._check_numbers()
        check_regex(self.regex, self.name)

    def _check_origin(self) -> None:
        """Check that the task has one origin, and only options that this origin has."""
        given = [key for key in ("rule", "file", "hub") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"{self.name!r} needs exactly one of rule, file or hub (found {' and '.join(given) or 0})")
        stray = [key for key in ("revision", "subset", "hub_split") if getattr(self, key) is not None]
        if stray and self.hub is None:
            raise ValueError(f"{self.name!r}: {stray[0]} is only for Hub data sets")
        if (self.rule == "kind") != bool(self.labels):
            raise ValueError(f"{self.name!r}: the rule kind needs labels, and only this rule has them")
        if self.rule and (self.columns or self.choices or self.regex or self.split != "auto"):
            raise ValueError(f"{self.name!r}: a rule makes its prompts itself; leave out columns, choices and split")
        for key in self.columns:
            if key not in COLUMNS:
                raise ValueError(f"{self.name!r}: columns has no {key!r}.{did_you_mean(key, COLUMNS)}")

    def _check_numbers(self) -> None:
        """Check the numbers of the task."""
        for key, low, high in (
            ("max_tokens", 1, LONGEST),
            ("shots", 0, MOST_SHOTS),
            ("limit", 1, None),
            ("per_document", 1, None),
        ):
            value = getattr(self, key)
            if value is not None and (value < low or (high is not None and value > high)):
                limits = f"at least {low}" if high is None else f"between {low} and {high}"
                raise ValueError(f"{self.name!r}: {key} must be {limits}")


def check_regex(pattern: str, where: str) -> None:
    """Check that a pattern is one.

    Args:
        pattern: The pattern.
        where: Place of the pattern, for the message.

    Raises:
        ValueError: It is not.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{where!r}: the regex {pattern!r:.60} cannot be read ({error})") from None
