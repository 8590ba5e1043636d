"""Commands that `torchrun` or `accelerate launch` starts in several processes at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minigpt import environment

# Commands whose work several processes share; the others run in the first one alone.
SHARED = frozenset({"build"})


def has_work(command: str) -> bool:
    """Return whether this process has anything to do for a command."""
    numbers = environment.process_numbers()
    return numbers is None or numbers[0] == 0 or command in SHARED


@contextmanager
def together(device: str) -> Iterator[bool]:
    """Yield True in the process that runs the command; the others help it and then yield False.

    Args:
        device: the user's device.

    Raises:
        ConfigError: there is no card for this process.
        LostProcess: another process ended.
    """
    if environment.process_numbers() is None:
        yield True
        return
    import torch

    from minigpt.distributed.jobs import working_together
    from minigpt.distributed.place import place_of

    place = place_of(device, torch.cuda.device_count())
    if place is None:
        yield True
        return
    with working_together(place) as leads:
        yield leads
