"""Long commands go on when their terminal is gone: a lost connection does not end a build that runs overnight."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

from minigpt import environment

# Commands that work for long, and write their results into a folder.
LONG = frozenset({"build", "sweep", "lottery", "export", "bench", "eval", "merge"})
# Standard input, output and errors.
STREAMS = (0, 1, 2)


def survive_hangup(command: str) -> None:
    """Let a long command go on after a hang-up, with what it would have shown in a log file of the data folder.

    A hang-up that is ignored already, as under `nohup`, stays ignored.

    Args:
        command: name of the command.
    """
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is None or command not in LONG or signal.getsignal(hangup) != signal.SIG_DFL:
        return
    # Afterwards the terminal is gone, and nothing tells any more which streams led to it.
    terminals = tuple(stream for stream in STREAMS if os.isatty(stream))

    def go_on(_signal: int, _frame: FrameType | None) -> None:
        _redirect(terminals)

    signal.signal(hangup, go_on)


def _redirect(streams: tuple[int, ...]) -> None:
    """Lead streams to a new log file, or nowhere if none can be written."""
    target = os.open(os.devnull, os.O_RDWR)
    with suppress(OSError):
        folder = environment.home()
        folder.mkdir(parents=True, exist_ok=True)
        target = os.open(folder / f"hangup-{os.getpid()}.log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in streams:
        os.dup2(target, stream)
