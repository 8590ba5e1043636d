"""Interrupts that wait for the end of a training step, so that what is saved then is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Signals that ask a run to end: the interrupt key, and `kill` or a batch system.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Signals that arrived and were not acted on yet.

    Args:
        before: Handlers that act on the signals.
    """

    def __init__(self, before: dict[int, Any]) -> None:
        self.before = before
        self.pending: int | None = None

    def remember(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal; a second one is acted on at once."""
        if self.pending is not None:
            self.deliver(frame)
        self.pending = number

    def deliver(self, frame: FrameType | None = None) -> None:
        """Act on the signal that was remembered, if there is one, as its handler would have done."""
        number, self.pending = self.pending, None
        if number is not None and callable(handler := self.before[number]):
            handler(number, frame)


@contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """Let interrupts inside the block wait until they are delivered; at its end the handlers are put back.

    Only handlers that Python code set, or Python itself, are replaced: a signal that ends the process at once, or is
    ignored, still does. In a thread that is not the main one nothing changes, because Python handles signals there.
    """
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in SIGNALS} if is_main else {}
    interrupts = Interrupts({number: handler for number, handler in handlers.items() if callable(handler)})
    for number in interrupts.before:
        signal.signal(number, interrupts.remember)
    try:
        yield interrupts
    finally:
        for number, handler in interrupts.before.items():
            signal.signal(number, handler)
    interrupts.deliver()
