"""Scores item by item: what a stage keeps so that any later stage can be compared with it in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.files import read_json, write_json
from minigpt.types import Ints

Floats = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextItems:
    """Sums for each document of a text task; the four columns run parallel to `keys` (document sources).

    `bits` is -log2 p of every token of the document; `bytes` counts UTF-8 bytes; `words` counts pieces between
    white space, as lm-eval does.
    """

    keys: tuple[str, ...]
    bits: Floats
    bytes: Ints
    words: Ints
    tokens: Ints

    @property
    def bits_per_byte(self) -> float:
        """The headline over all documents: a ratio of sums, so that long documents weigh by their length."""
        return sum(self.bits) / sum(self.bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionItems:
    """The choice taken for each question by raw and by byte-normalized log-likelihood, and the right one.

    The columns run parallel to `keys`, fingerprints of question, choices and answer; `chance` is the mean of
    1 / number of choices.
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
class ItemScores:
    """Everything measured on one model; the keys of both mappings are task names of the report."""

    texts: Mapping[str, TextItems] = field(default_factory=dict)
    questions: Mapping[str, QuestionItems] = field(default_factory=dict)


def save_scores(scores: ItemScores, path: Path) -> None:
    """Write the scores as JSON, atomically."""
    write_json(path, scores)


def load_scores(path: Path) -> ItemScores:
    """Read what `save_scores` wrote.

    Raises:
        MiniGPTError: the file is missing or is not a record of scores.
    """
    return read_json(path, ItemScores)
