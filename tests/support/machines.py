"""A machine that is not equally fast all the time, with models on it that take a known time for a token.

Nothing is loaded and nothing waits: a clock of its own moves on with every token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np


@dataclass
class Machine:
    """A clock, and how much slower than at its best the machine is at a time.

    Attributes:
        seed: seed of everything that is random.
        drift: size of the slow swing of the machine's speed, in logarithms.
        hiccups: share of the tokens that other work delays.
        luck: share of the time, in spells of a twentieth of a second, in which the machine is half as fast again.
        now: seconds on the clock.
    """

    seed: int = 0
    drift: float = 0.0
    hiccups: float = 0.0
    luck: float = 0.0
    now: float = 0.0
    random: np.random.Generator = field(init=False)
    waves: Any = field(init=False)

    def __post_init__(self) -> None:
        """Draw the swings: some last seconds and some a minute."""
        self.random = np.random.default_rng(self.seed)
        self.waves = [(self.random.uniform(4, 60), self.random.uniform(0, 2 * math.pi)) for _ in range(5)]

    def slowness(self) -> float:
        """Return how many times longer than at its usual speed a token takes now."""
        swing = sum(math.sin(2 * math.pi * self.now / period + phase) for period, phase in self.waves)
        slow = math.exp(self.drift * swing / math.sqrt(len(self.waves) / 2)) * math.exp(0.02 * self.random.normal())
        if np.random.default_rng((self.seed, int(self.now / 0.05))).random() < self.luck:
            slow /= 1.5
        return slow * (self.random.uniform(1.5, 4) if self.random.random() < self.hiccups else 1.0)

    def clock(self) -> Any:
        """Return something with `perf_counter`, to stand where a module has `time`."""
        return SimpleNamespace(perf_counter=lambda: self.now)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@dataclass
class TimedModel:
    """A model that decodes a token in `seconds` while the machine has its usual speed; see `Runtime`."""

    machine: Machine
    seconds: float
    tokenizer: Any = field(default_factory=lambda: SimpleNamespace(encode=lambda *_words, **_more: list(range(50))))

    def begin(self, tokens: Sequence[int]) -> None:
        """Read a prompt, much faster for each token than decoding is."""
        self.machine.wait(self.seconds * len(tokens) / 10 * self.machine.slowness())

    def step(self, _token: int) -> None:
        """Decode one token."""
        self.machine.wait(self.seconds * self.machine.slowness())


def opened(machine: Machine, seconds: Callable[[str], float]) -> Callable[..., TimedModel]:
    """Return a stand-in of `open_model`; opening takes a while, so that sessions see different times.

    Args:
        machine: the machine.
        seconds: seconds of a token by the model's reference.
    """

    def open_one(ref: str, **_options: Any) -> TimedModel:
        machine.wait(3.0)
        return TimedModel(machine=machine, seconds=seconds(ref))

    return open_one
