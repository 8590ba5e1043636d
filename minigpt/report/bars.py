"""Bars, columns and sparklines of Unicode characters, readable in a log file and without color."""

from __future__ import annotations

from collections.abc import Sequence

LEVELS = "▁▂▃▄▅▆▇"  # no full block: rows of columns must not grow into each other
REMOVED = "×"  # a layer that was removed
LAYERS_PER_ROW = 48


def bar(fraction: float, width: int) -> str:
    """Draw a thin horizontal bar of `width` cells, filled to `fraction` (clipped to 0..1) in steps of half a cell."""
    full, half = divmod(round(min(max(fraction, 0.0), 1.0) * width * 2), 2)
    return ("━" * full + "╸" * half).ljust(width)


def column(fraction: float) -> str:
    """Draw one vertical bar for the fraction of a layer that is kept; a removed layer (0) is `×`."""
    if fraction <= 0:
        return REMOVED
    return LEVELS[min(len(LEVELS) - 1, max(0, round(fraction * len(LEVELS)) - 1))]


def columns(kept: Sequence[int], full: int) -> str:
    """Draw one character for each layer: the share of `full` units that it kept."""
    return "".join(column(count / full if full else 0.0) for count in kept)


def ruler(first: int, count: int, step: int = 5) -> str:
    """Write layer numbers to stand above :func:`columns`, each starting over its layer; the last ones may stick out.

    Args:
        first: Number of the first layer of the row.
        count: Layers in the row.
        step: Distance between two numbers.
    """
    line = ""
    for layer in range(first, first + count):
        offset = layer - first
        if layer % step == 0 and len(line) <= offset:
            line = line.ljust(offset) + str(layer)
    return line.ljust(count)


def chunks(count: int, size: int = LAYERS_PER_ROW) -> tuple[range, ...]:
    """Cut layer indices into rows that fit a terminal."""
    return tuple(range(start, min(start + size, count)) for start in range(0, count, size))


def sparkline(values: Sequence[float]) -> str:
    """Draw the shape of a curve in one line, e.g. of dev losses; the lowest value is the lowest block."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    span = high - low
    return "".join(LEVELS[round((value - low) / span * (len(LEVELS) - 1))] if span else LEVELS[0] for value in values)
