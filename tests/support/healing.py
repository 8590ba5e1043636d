"""Tiny texts, recipes and reporters for the tests of healing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import Any, TypeVar

from minigpt.healing import Recipe, TokenText
from minigpt.progress import Silent

T = TypeVar("T")
VOCABULARY = 64


def patterned(count: int, *, seed: int = 0, shortest: int = 9, longest: int = 24) -> TokenText:
    """Return windows that count upwards in steps of 3 modulo 61, which is easy to learn."""
    draw = Random(seed)
    windows = tuple(
        (1, *((start + 3 * index) % 61 + 3 for index in range(draw.randint(shortest - 1, longest - 1))))
        for start in (draw.randrange(61) for _ in range(count))
    )
    return TokenText(windows=windows, bytes=2 * sum(len(window) - 1 for window in windows))


def recipe(**changes: Any) -> Recipe:
    """Return a recipe of twelve small steps in fp32, with changes."""
    settings: dict[str, Any] = {
        "steps": 12,
        "tokens_per_step": 96,
        "learning_rate": 3e-3,
        "warmup": 2,
        "average": 0.9,
        "evaluate_every": 4,
        "precision": "fp32",
    }
    return Recipe(**(settings | changes))


class Killed(Exception):
    """Exception that ends a run as a power cut would."""


class Killer(Silent):
    """A reporter that raises `Killed` after `steps` items."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        for done, item in enumerate(items):
            if done == self.steps:
                raise Killed
            yield item


class Notes(Silent):
    """A reporter that remembers its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


class Steps(Silent):
    """A reporter that remembers how long loops are."""

    def __init__(self) -> None:
        self.totals: dict[str, float | None] = {}

    def track(self, items: Any, *, title: str, total: float | None = None) -> Iterator[Any]:
        self.totals[title] = total
        yield from items
