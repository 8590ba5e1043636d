"""Types of options: sizes, fractions and lists of names as users write them, and `--set` with its pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from minigpt.costs import Price, parse_price
from minigpt.errors import ConfigError
from minigpt.planning.target import parse_amount, parse_fraction


class Amount(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Option type of a count such as `100M`, or with `unit="B"` of a number of bytes such as `150MB` or `143MiB`."""

    def __init__(self, name: str, *, unit: str = "") -> None:
        self.name = name
        self.unit = unit.lower()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a positive integer."""
        try:
            return parse_amount(value, unit=self.unit)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class Fraction(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Option type of a fraction of parameters to keep: `0.75` or `75%`."""

    name = "fraction"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a number above 0 and at most 1."""
        try:
            return parse_fraction(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


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


class HourPrice(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Option type of the price of an hour, an amount and a currency: `2.50 EUR`."""

    name = "price"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Price:
        """Parse an amount and a currency."""
        try:
            return value if isinstance(value, Price) else parse_price(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


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


def given_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the user gave: neither missing ones, flags that are off, nor empty lists."""
    return {
        name: value
        for name, value in options.items()
        if value is not None and value is not False and value not in ((), {})  # 0 equals False, but is a seed
    }


def overrides(example: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make the option `--set KEY=VALUE`, with an example in its help."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        callback=pairs,
        metavar="KEY=VALUE",
        help=f"Setting to change, e.g. {example}. Repeat for several.",
    )


def workers(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make the options `--workers` and `--worker-option`.

    Args:
        what: what the workers share out.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        option = click.option(
            "--worker-option",
            "worker_options",
            multiple=True,
            callback=pairs,
            metavar="KEY=VALUE",
            help="Parameter of submitit for Slurm, e.g. slurm_partition=gpu. Repeat for several.",
        )
        number = click.option(
            "--workers",
            metavar="N|ray|slurm",
            help=f"Share out {what} to N processes with a card each, or to workers of Ray or Slurm (ray:8, slurm:8).",
        )
        return number(option(function))

    return decorate


def crew_of(workers: str | None, options: Mapping[str, str]) -> Any:
    """Return the workers that the options ask for, or None.

    Raises:
        click.UsageError: there are options without workers.
    """
    from minigpt.workers import parse_workers

    if workers is None:
        if options:
            raise click.UsageError("--worker-option needs --workers slurm.")
        return None
    return parse_workers(workers, options)
