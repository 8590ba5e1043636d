"""The number of workers, and who starts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from minigpt.errors import ConfigError, UnknownName

# The "module:function" that starts workers of each kind; it returns a `Crew`.
STARTERS = {
    "local": "minigpt.workers.local:start",
    "ray": "minigpt.workers.cluster:start_ray",
    "slurm": "minigpt.workers.cluster:start_slurm",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """A wish for workers.

    Attributes:
        kind: `local` for processes on this machine, `ray` or `slurm`.
        count: number of workers (None: as many as there are cards, or pieces of work on Slurm).
        options: further options of the starter, e.g. Slurm's partition.
    """

    kind: str = "local"
    count: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)


def parse_workers(text: str, options: Mapping[str, str] | None = None) -> Workers:
    """Read `4`, `ray`, `ray:4`, `slurm` or `slurm:4`.

    Args:
        text: what the user wrote.
        options: further options of the starter.

    Raises:
        UnknownName: nobody of this name starts workers.
        ConfigError: the number is none, or below 1.
    """
    kind, _, number = ("local", "", text) if text.lstrip("-").isdigit() else text.partition(":")
    if kind not in STARTERS:
        raise UnknownName("starter of workers", kind, STARTERS)
    if number and not (number.isdigit() and int(number)):
        raise ConfigError(f"{number!r} is no number of workers. Write a number from 1, such as 4, ray:4 or slurm:4.")
    return Workers(kind=kind, count=int(number) if number else None, options=dict(options or {}))
