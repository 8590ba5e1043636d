"""Ranges of settings: a table of limits that every group of settings is checked against when it is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from minigpt.errors import ConfigError

# Largest size of any number in a setting: far beyond every sensible one, and exact as a float.
LARGEST = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers that a setting may have.

    Attributes:
        low: the smallest number; None sets no limit.
        high: the largest number; None sets no limit.
        above: whether `low` itself is excluded.
        below: whether `high` itself is excluded.
        empty: whether a list of numbers may be empty.
    """

    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False
    empty: bool = True

    def __contains__(self, value: float) -> bool:
        """Return whether a number lies inside."""
        low = self.low is None or (value > self.low if self.above else value >= self.low)
        high = self.high is None or (value < self.high if self.below else value <= self.high)
        return low and high

    def __str__(self) -> str:
        """Describe the range, as the end of "must be ..."."""
        if self.low is not None and self.high is not None and not self.above and not self.below:
            return f"between {self.low:g} and {self.high:g}"
        low = "" if self.low is None else f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        high = "" if self.high is None else f"below {self.high:g}" if self.below else f"at most {self.high:g}"
        return " and ".join(part for part in (low, high) if part)


def at_least(low: float, high: float | None = None) -> Range:
    """Return the range from `low` on, both ends included."""
    return Range(low=low, high=high)


def above(low: float, high: float | None = None) -> Range:
    """Return the range of numbers larger than `low`, and at most `high`."""
    return Range(low=low, high=high, above=True)


# A share, which may be nothing or all.
SHARE = Range(low=0, high=1)
# A share that may be nothing, but not all.
PART = Range(low=0, high=1, below=True)


def check_ranges(settings: Any, ranges: Mapping[str, Range], *, named: str = "{}") -> None:
    """Check every number of a group of settings: finite, of a sensible size, and in its range.

    Args:
        settings: a dataclass; numbers may stand alone or in tuples, and None sets nothing.
        ranges: the range of each field that has one.
        named: how messages name a field.

    Raises:
        ConfigError: a value is outside its range; the message names the field, the range and the value.
    """
    for item in fields(settings):
        value = getattr(settings, item.name)
        numbers = [number for number in (value if isinstance(value, tuple) else (value,)) if _is_number(number)]
        allowed = ranges.get(item.name, Range())
        if isinstance(value, tuple) and not value and not allowed.empty:
            raise ConfigError(f"{named.format(item.name)} must be one or more numbers {allowed}, not {value!r}.")
        for number in numbers:
            if not math.isfinite(number) or abs(number) > LARGEST:
                wanted = f"a finite number {allowed}".rstrip()
                raise ConfigError(f"{named.format(item.name)} must be {wanted}, not {_short(value)}.")
            if number not in allowed:
                words = f"numbers {allowed}" if isinstance(value, tuple) else str(allowed)
                raise ConfigError(f"{named.format(item.name)} must be {words}, not {_short(value)}.")


def _is_number(value: Any) -> bool:
    """Return whether a value is a number; a switch is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    """Write a value for a message, cut off where it is very long."""
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
