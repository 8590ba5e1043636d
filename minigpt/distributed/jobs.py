"""Jobs that the first process gives to the others, and the loop in which they wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minigpt.distributed import set_current
from minigpt.distributed.ending import TERMINATED, is_loss, speaks, watched
from minigpt.distributed.group import END, Group, LostProcess, start, stop
from minigpt.distributed.place import Place
from minigpt.errors import MiniGPTError
from minigpt.lazy import resolve

# The "module:function" of each job; it takes the group, and everything else from the first process.
JOBS = {
    "hold": "minigpt.transformer.shipping:help_to_hold",
    "drop": "minigpt.transformer.shipping:help_to_drop",
    "statistics": "minigpt.transformer.together:help_with_statistics",
    "sample": "minigpt.healing.together:help_to_sample",
    "score": "minigpt.evaluation.lm:help_to_score",
    "train": "minigpt.healing.training:help_to_train",
}


def serve(group: Group) -> None:
    """Do every job that the first process announces, until it announces the end."""
    while (name := group.next_job()) is not None:
        resolve(JOBS[name])(group)


@contextmanager
def working_together(place: Place) -> Iterator[bool]:
    """Meet the other processes; yield True in the first one, and serve it in the others before False is yielded.

    A process that fails for a reason of its own ends, and `torchrun` then ends the others.

    Raises:
        LostProcess: another process ended; one of those that are left raises it, and the others end in silence.
    """
    group = start(place)
    set_current(group)
    try:
        with watched(group):
            yield from _working(group)
    except SystemExit as ending:
        if ending.code == TERMINATED and speaks(group):
            raise LostProcess from None
        raise
    except Exception as error:
        if isinstance(error, MiniGPTError) or not is_loss(error):
            raise
        if speaks(group):
            raise LostProcess from error
        raise SystemExit(1) from error
    finally:
        set_current(None)
        stop()


def _working(group: Group) -> Iterator[bool]:
    """Yield True in the first process and tell the others of the end afterwards; serve in the others."""
    if not group.leads:
        serve(group)
        yield False
        return
    try:
        yield True
    finally:
        group.announce(END)
