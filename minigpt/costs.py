"""Records of what a build cost: time and energy of its steps, and the price of an hour of the machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from minigpt.errors import ConfigError

PRICE = re.compile(r"\s*(?P<amount>\d+(?:\.\d+)?)\s*(?P<currency>[^\d\s.,-]{1,8})\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Price of an hour of the machine, as the user states it.

    Attributes:
        amount: Amount of money for an hour.
        currency: Currency, e.g. `EUR`.
    """

    amount: float
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Cost of one step of a build.

    Attributes:
        name: Name of the step, which is that of its folder under `work/`.
        seconds: Time that the step took.
        joules: Energy by the counters that could be read, `processor` and `gpu`: that of the whole device, whatever
            else ran on it. Empty where no counter could be read.
    """

    name: str
    seconds: float
    joules: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of a build.

    Attributes:
        steps: Its steps in the order in which they ran. A step that was interrupted counts from its last start.
        price: Price of an hour; None where the user stated none.
    """

    steps: tuple[StepCost, ...] = ()
    price: Price | None = None

    @property
    def seconds(self) -> float:
        """Time of all steps."""
        return sum(step.seconds for step in self.steps)

    @property
    def joules(self) -> dict[str, float]:
        """Energy of all steps, of the counters that could be read in every one."""
        counters = [set(step.joules) for step in self.steps]
        common = set.intersection(*counters) if counters else set()
        return {name: sum(step.joules[name] for step in self.steps) for name in sorted(common, reverse=True)}


def parse_price(text: str) -> Price:
    """Read a price of an hour such as `2.50 EUR`.

    Raises:
        ConfigError: It is none.
    """
    match = PRICE.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is no price of an hour: write an amount and a currency, e.g. '2.50 EUR'.")
    return Price(amount=float(match["amount"]), currency=match["currency"])
