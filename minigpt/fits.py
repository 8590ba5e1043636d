"""Records of a build that was fitted to the limits of a device: each limit, and what the exported model has."""

from __future__ import annotations

from dataclasses import dataclass

# Distance from a limit, as a share of it, within which a fit has met it.
WITHIN = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One constraint and what became of it.

    Attributes:
        constraint: The constraint as the user wrote it.
        kind: file, ram or speed.
        limit: The limit in bytes or tokens a second.
        expected: Figure that the choice was expected to have; None where nothing was known.
        measured: Figure of the exported model; None where it was not measured, because the device is another one. The
            speed behind a multiple of the parent's is the parent's speed times the ratio of paired turns.
        low: Lower end of the 95 % interval of a speed; None for bytes.
        high: Its upper end.
    """

    constraint: str
    kind: str
    limit: float
    expected: float | None
    measured: float | None
    low: float | None = None
    high: float | None = None

    @property
    def deviation(self) -> float | None:
        """Distance of the measured figure from the limit, as a share of it."""
        return None if self.measured is None else self.measured / self.limit - 1

    @property
    def kept(self) -> bool | None:
        """True if the limit is kept; None where nothing was measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.kind == "speed" else self.measured <= self.limit

    @property
    def near(self) -> bool | None:
        """True if the measured figure is within :data:`WITHIN` of the limit; None where nothing was measured."""
        return None if self.deviation is None else abs(self.deviation) <= WITHIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A fit and what came out, as the report of the build keeps it.

    Attributes:
        runtime: The runtime that the model was exported for.
        precision: The precision of the export.
        export: Name of the folder of the export.
        machine: The hardware that speed and memory were measured on; empty where nothing had to be measured.
        outcomes: Every constraint and what became of it.
        remarks: Sentences on limits that were missed, and why.
    """

    runtime: str
    precision: str
    export: str
    machine: str = ""
    outcomes: tuple[Outcome, ...] = ()
    remarks: tuple[str, ...] = ()
