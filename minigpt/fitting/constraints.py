"""Constraints of a device as a user writes them: `50MB`, `60 tokens/s`, `2x parent tokens/s`, `300MB ram`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from minigpt.errors import ConfigError
from minigpt.planning.target import parse_amount

Kind = Literal["file", "ram", "speed"]
# Units of each kind of constraint, as users write them behind the amount.
UNITS: dict[str, Kind] = {
    "": "file",
    "file": "file",
    "disk": "file",
    "ram": "ram",
    "memory": "ram",
    "tokens/s": "speed",
    "token/s": "speed",
    "tok/s": "speed",
    "t/s": "speed",
}
EXAMPLES = '"50MB", "300MB ram", "60 tokens/s" or "2x parent tokens/s"'
RELATIVE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*x\s+parent\b\s*(.*)", re.ASCII)
ABSOLUTE = re.compile(r"([0-9]+(?:[.,_][0-9]+)*\s*[kmgt]?i?b?)(?:\s+(.*))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """One limit of the device.

    Attributes:
        kind: file: at most so many bytes of weights on disk; ram: at most so many bytes of resident memory; speed: at
            least so many tokens a second while decoding.
        amount: the limit in bytes or tokens a second; with `relative`, as a multiple of the parent's.
        relative: whether the amount is a multiple of the uncut parent's own figure.
        text: the constraint as the user wrote it.
    """

    kind: Kind
    amount: float
    relative: bool = False
    text: str = ""

    def limit(self, parent: float) -> float:
        """Return the limit in bytes or tokens a second, given the parent's own figure."""
        return self.amount * parent if self.relative else self.amount


def parse_constraint(text: str) -> Constraint:
    """Read one constraint.

    Raises:
        ConfigError: the text is none; the message shows how constraints are written.
    """
    words = " ".join(text.lower().split())
    if match := RELATIVE.fullmatch(words):
        return _constraint(text, float(match[1]), match[2], relative=True)
    match = ABSOLUTE.fullmatch(words.replace("tokens / s", "tokens/s"))
    if match is None:
        raise _unreadable(text)
    amount, unit = match[1].strip(), match[2] or ""
    if UNITS.get(unit) == "speed":
        return _constraint(text, float(amount) if re.fullmatch(r"[0-9.]+", amount) else 0.0, unit)
    try:
        return _constraint(text, parse_amount(amount, unit="b"), unit)
    except ConfigError:
        raise _unreadable(text) from None


def parse_constraints(texts: Sequence[str]) -> tuple[Constraint, ...]:
    """Read several constraints, one of each kind at most.

    Raises:
        ConfigError: one cannot be read, there is none, or two are of one kind.
    """
    constraints = tuple(parse_constraint(text) for text in texts)
    if not constraints:
        raise ConfigError(f"Give at least one constraint to fit, such as {EXAMPLES}.")
    kinds = [constraint.kind for constraint in constraints]
    for constraint in constraints:
        if kinds.count(constraint.kind) > 1:
            same = " and ".join(repr(other.text) for other in constraints if other.kind == constraint.kind)
            raise ConfigError(f"{same} limit the same thing; give one of them.")
    return constraints


def _constraint(text: str, amount: float, unit: str, *, relative: bool = False) -> Constraint:
    """Put a constraint together, and refuse units that do not exist and amounts that are none."""
    if unit not in UNITS or amount <= 0:
        raise _unreadable(text)
    kind = UNITS[unit]
    if relative and kind != "speed":
        raise ConfigError(f"{text!r}: only a speed is fitted to a multiple of the parent's; give bytes, such as 50MB.")
    if kind != "speed" and not re.search(r"[a-z]*b\b", text.lower()):
        raise _unreadable(text)
    return Constraint(kind=kind, amount=float(amount), relative=relative, text=text.strip())


def _unreadable(text: str) -> ConfigError:
    """Make the error for a text that is no constraint."""
    return ConfigError(f"{text!r} is nothing that a model can be fitted to: write it like {EXAMPLES}.")
