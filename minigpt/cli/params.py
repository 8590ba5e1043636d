"""Types of options: sizes, fractions and lists of names as users write them, and `key=value` pairs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import click

# Factors of the suffixes of counts and of decimal byte units.
DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
# Factors of binary byte units.
BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


class Amount(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Option type of a count such as `100M`, or with `unit="B"` of a number of bytes such as `150MB` or `143MiB`."""

    def __init__(self, name: str, *, unit: str = "") -> None:
        self.name = name
        self.unit = unit.lower()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a positive integer."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(
            r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", value.strip().lower().replace("_", "").replace(",", "")
        )
        scale = self.scale(match[2]) if match else None
        amount = round(float(match[1]) * scale) if match and scale else 0
        if amount <= 0:
            example = "150MB, 143MiB or 150000000" if self.unit else "100M, 0.5B or 100000000"
            self.fail(f"{value!r} is not a size: write it like {example}.", param, ctx)
        return amount

    def scale(self, suffix: str) -> int | None:
        """Return the factor of a suffix; None if it is unknown."""
        if self.unit and suffix.endswith(self.unit):
            suffix = suffix.removesuffix(self.unit)
            return (DECIMAL | BINARY).get(suffix)
        return DECIMAL.get(suffix)


class Fraction(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Option type of a fraction of parameters to keep: `0.75` or `75%`."""

    name = "fraction"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a number above 0 and at most 1."""
        try:
            number = float(value[:-1]) / 100 if str(value).endswith("%") else float(value)
        except ValueError:
            number = 0.0
        if not 0 < number <= 1:
            self.fail(f"{value!r} is not a fraction of parameters to keep: write it like 0.75 or 75%.", param, ctx)
        return number


class NameList(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Option type of comma-separated names; repeats are left out."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parse a tuple with at least one name."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return names or self.fail("give at least one name.", param, ctx)


class Fractions(NameList):
    """Option type of comma-separated fractions of parameters to keep: `0.9,0.75` or `90%,75%`."""

    name = "fractions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a tuple of numbers above 0 and at most 1."""
        if isinstance(value, tuple):
            return value
        fraction = Fraction()
        return tuple(fraction.convert(part, param, ctx) for part in super().convert(value, param, ctx))


class Names(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Option type of comma-separated names from a fixed set."""

    name = "names"

    def __init__(self, *known: str) -> None:
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parse a tuple of known names without repeats."""
        if isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        if unknown := [name for name in names if name not in self.known]:
            self.fail(f"unknown: {', '.join(unknown)}. Choose from {', '.join(self.known)}.", param, ctx)
        return names or self.fail(f"name at least one of {', '.join(self.known)}.", param, ctx)


def pairs(_ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> Mapping[str, str]:
    """Parse the values of `--set key=value`; a click callback."""
    result = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{value!r}: write it like key=value, e.g. heal.steps=50.", param=param)
        result[key.strip()] = text.strip()
    return result


def at_most_one(**options: Any) -> None:
    """Refuse options that exclude each other.

    Raises:
        click.UsageError: more than one of `options` was given.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other: give one target.")
