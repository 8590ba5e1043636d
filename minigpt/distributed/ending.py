"""The end of a group of which a process has died: one sentence from one process, even from within a blocked exchange.

`torchrun` ends the others by SIGTERM. A process that waits for a card inside of NCCL never gets to Python's handler of
the signal, so a thread reads of its arrival from a pipe that the interpreter writes to, and ends the process.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from minigpt.distributed.group import Group, LostProcess

# Seconds that a process has to end in an orderly way.
GRACE = 3.0
TERMINATED = 143
# Words in errors of torch that stand for a peer that is gone.
_LOSSES = ("connection", "peer", "nccl", "gloo", "broken pipe", "timed out", "timeout", "socket", "store")


def is_loss(error: BaseException) -> bool:
    """Return whether an error of an exchange says that another process is gone."""
    module = type(error).__module__
    words = str(error).lower()
    return "distributed" in module or "_C" in module or any(word in words for word in _LOSSES)


def speaks(group: Group) -> bool:
    """Return True in the one process that tells of the loss."""
    with suppress(Exception):  # the store is gone with the first process: then the second one speaks
        return group.claims("ending")
    return group.rank == 1


def say_once(group: Group) -> None:
    """Print the sentence about the lost process, unless another process has printed it."""
    if speaks(group):
        with suppress(OSError, ValueError):
            sys.stderr.write(f"Error: {LostProcess()}\n")
            sys.stderr.flush()


@contextmanager
def watched(group: Group) -> Iterator[None]:
    """Inside the block SIGTERM ends the process after a moment of grace, whatever it waits for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    over = threading.Event()

    def watch() -> None:
        with suppress(OSError):
            while data := reading.recv(64):
                if signal.SIGTERM in data:
                    if not over.wait(GRACE):
                        say_once(group)
                        os._exit(TERMINATED)
                    return

    thread = threading.Thread(target=watch, name="ending", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        writing.close()
        thread.join(timeout=1)
        reading.close()
