"""The place of a process among those that build one model together."""

from __future__ import annotations

from dataclasses import dataclass

from minigpt import environment
from minigpt.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The number of a process, of how many, and its device.

    Attributes:
        rank: number of the process, from 0.
        world: number of processes.
        local: number of the process on its machine.
        device: torch device that the process works on.
    """

    rank: int
    world: int
    local: int = 0
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """True for the process that runs the build, writes and prints."""
        return self.rank == 0


def place_of(device: str, cards: int) -> Place | None:
    """Return the place that `torchrun` or `accelerate launch` gave this process; None where it was started alone.

    Args:
        device: the user's device.
        cards: number of CUDA devices of this machine.

    Raises:
        ConfigError: there is no card for this process, or the user named one card for all of them.
    """
    given = environment.process_numbers()
    if given is None or given[1] == 1:
        return None
    rank, world, local = given
    if device == "cpu" or (device == "auto" and not cards):
        return Place(rank=rank, world=world, local=local)
    if device not in ("auto", "cuda"):
        raise ConfigError(f"--device {device} is one device for {world} processes. Leave it out: each takes its own.")
    if local >= cards:
        raise ConfigError(
            f"Process {local} of this machine has no card of its own: there are {cards}. "
            f"Use --nproc-per-node {cards}, or --device cpu."
        )
    return Place(rank=rank, world=world, local=local, device=f"cuda:{local}")
