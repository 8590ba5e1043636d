"""Scores of single documents and questions, kept on disk so that a later stage can be compared with them in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.files import read_json, write_json
from minigpt.types import Ints

Floats = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextItems:
    """Sums over the tokens of each document of a text task.

    Attributes:
        keys: Sources of the documents; the four columns below run parallel to them.
        bits: Sum of -log2 p over the tokens of the document.
        bytes: UTF-8 bytes.
        words: Pieces between white space, as lm-eval counts them.
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


Items = TextItems | QuestionItems


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemScores:
    """All item scores of one model.

    Attributes:
        texts: Scores of documents, by the task names of the report.
        questions: Scores of questions, by the task names of the report.
        opening: Text of the token that stood before every text; empty in scores of older versions.
    """

    texts: Mapping[str, TextItems] = field(default_factory=dict)
    questions: Mapping[str, QuestionItems] = field(default_factory=dict)
    opening: str = ""


def save_scores(scores: ItemScores, path: Path) -> None:
    """Write the scores as JSON, atomically."""
    write_json(path, scores)


def load_scores(path: Path) -> ItemScores:
    """Read the scores that `save_scores` wrote.

    Raises:
        MiniGPTError: The file is missing or is not a record of scores.
    """
    return read_json(path, ItemScores)
