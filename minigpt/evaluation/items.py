"""Scores of single documents and questions, kept on disk so that a later stage can be compared with them in pairs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from minigpt.files import read_json, write_json
from minigpt.types import Ints

Floats = tuple[float, ...]
# Beginning of the names of columns with the scores of guessing.
GUESS = "guess_"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextItems:
    """Sums over the tokens of each document of a text task.

    Attributes:
        keys: Sources of the documents; the four columns below run parallel to them.
        bits: Sum of -log2 p over the tokens of the document.
        bytes: UTF-8 bytes.
        words: Pieces between white space, as lm-eval counts them; a character each in scripts without spaces.
        tokens: Tokens, without the prefix token.
    """

    keys: tuple[str, ...]
    bits: Floats
    bytes: Ints
    words: Ints
    tokens: Ints

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte over all documents: a ratio of sums, so that long documents weigh by their length."""
        return sum(self.bits) / sum(self.bytes)

    def of(self, keys: Collection[str]) -> TextItems:
        """Return the items of the documents with these sources, in the order that they have here."""
        places = [place for place, key in enumerate(self.keys) if key in keys]
        return TextItems(
            keys=tuple(self.keys[place] for place in places),
            bits=tuple(self.bits[place] for place in places),
            bytes=tuple(self.bytes[place] for place in places),
            words=tuple(self.words[place] for place in places),
            tokens=tuple(self.tokens[place] for place in places),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecitationItems:
    """The part of each document's continuation that a model gives back word for word (`minigpt.evaluation.recitation`).

    Attributes:
        keys: Sources of the documents; the two columns below run parallel to them.
        recited: Characters that greedy decoding gives back before its first error.
        characters: Characters of the true continuations.
    """

    keys: tuple[str, ...]
    recited: Ints
    characters: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionItems:
    """The model's choice and the right choice for each question.

    Attributes:
        keys: Fingerprints of question, choices and answer; the three columns below run parallel to them.
        answers: Index of the right choice.
        picks: Index of the choice with the greatest log-likelihood.
        picks_norm: Index of the choice with the greatest log-likelihood per UTF-8 byte.
        chance: Accuracy of guessing, the mean of 1 / number of choices.
    """

    keys: tuple[str, ...]
    answers: Ints
    picks: Ints
    picks_norm: Ints
    chance: float

    @property
    def correct(self) -> Ints:
        """1 where the raw log-likelihood picks the right choice, else 0."""
        return tuple(int(pick == answer) for pick, answer in zip(self.picks, self.answers, strict=True))

    @property
    def correct_norm(self) -> Ints:
        """1 where the log-likelihood per byte picks the right choice, else 0."""
        return tuple(int(pick == answer) for pick, answer in zip(self.picks_norm, self.answers, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerItems:
    """The model's free answer to each prompt of a task, and its scores.

    Attributes:
        keys: Fingerprints of the prompts with their right answers; the texts and columns below run parallel to them.
        texts: What the model answered.
        columns: Numerators and denominators of the task's metrics, by name, and scores of guessing behind `GUESS`.
    """

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    columns: Mapping[str, Floats]

    def guessed(self, metric: str) -> float | None:
        """Return the score of the commonest right label, given to every prompt; None for a metric without one."""
        column = self.columns.get(GUESS + metric)
        return sum(column) / len(column) if column else None


Items = TextItems | QuestionItems | RecitationItems | AnswerItems


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemScores:
    """All item scores of one model.

    Attributes:
        texts: Scores of documents, by the task names of the report.
        questions: Scores of questions, by the task names of the report.
        opening: Text of the token that stood before every text; empty in scores of older versions.
        recitations: Items of the passages that were completed, by task.
        answers: Items of the tasks with free answers, by the task names of the report.
    """

    texts: Mapping[str, TextItems] = field(default_factory=dict)
    questions: Mapping[str, QuestionItems] = field(default_factory=dict)
    opening: str = ""
    recitations: Mapping[str, RecitationItems] = field(default_factory=dict)
    answers: Mapping[str, AnswerItems] = field(default_factory=dict)


def with_parts(scores: ItemScores, parts: Mapping[str, tuple[str, Collection[str]]]) -> ItemScores:
    """Add text tasks that are parts of measured ones, from the scores that are there; a part without any is left out.

    Args:
        scores: Scores of a model.
        parts: For each new task, the task that it is a part of and the sources of its documents.
    """
    added = {task: scores.texts[whole].of(keys) for task, (whole, keys) in parts.items() if whole in scores.texts}
    return replace(scores, texts={**scores.texts, **{task: items for task, items in added.items() if items.keys}})


def save_scores(scores: ItemScores, path: Path) -> None:
    """Write the scores as JSON, atomically."""
    write_json(path, scores)


def load_scores(path: Path) -> ItemScores:
    """Read the scores that `save_scores` wrote.

    Raises:
        MiniGPTError: The file is missing or is not a record of scores.
    """
    return read_json(path, ItemScores)
