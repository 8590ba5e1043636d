"""Rows of the table of a fit, the same on the terminal and on the page of the build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minigpt.fits import Outcome

HEADS = ("asked", "limit", "expected", "measured", "95 % interval", "off by", "≤ 10 %", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRow:
    """One limit in words and figures, in the order of :data:`HEADS`.

    Attributes:
        constraint: The limit as the user wrote it.
        limit: The limit with its unit.
        expected: The figure that was expected.
        measured: The figure of the exported model.
        interval: 95 % interval of a speed.
        off: Distance from the limit.
        near: Whether the figure is within 10 % of the limit.
        verdict: Whether the limit is kept.
    """

    constraint: str
    limit: str
    expected: str
    measured: str
    interval: str
    off: str
    near: str
    verdict: str


def fit_rows(outcomes: Sequence[Outcome]) -> list[FitRow]:
    """Write every limit and what became of it."""
    return [
        FitRow(
            constraint=item.constraint,
            limit=figure(item.kind, item.limit),
            expected=figure(item.kind, item.expected),
            measured=figure(item.kind, item.measured),
            interval="" if item.low is None or item.high is None else f"{item.low:.1f} – {item.high:.1f}",
            off="" if item.deviation is None else f"{100 * item.deviation:+.1f} %",
            near={True: "yes", False: "no", None: ""}[item.near],
            verdict={True: "kept", False: "not kept", None: "not measured here"}[item.kept],
        )
        for item in outcomes
    ]


def figure(kind: str, value: float | None) -> str:
    """Write bytes or tokens a second with their unit."""
    if value is None:
        return "unknown"
    return f"{value:.1f} tokens/s" if kind == "speed" else f"{value / 1e6:.1f} MB"
