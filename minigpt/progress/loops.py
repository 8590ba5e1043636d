"""Loops of a run, each as a stage of it: numbered, with the time left in all where loops of their kinds are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from minigpt.progress import Reporter
from minigpt.progress.pieces import Pieces, Planned
from minigpt.progress.stages import Numbered, Stage

T = TypeVar("T")


class Looped(Numbered):
    """Reporter that makes stages of the loops of a run, and passes everything on to another reporter.

    Args:
        inner: the other reporter.
        loops: the loops by their titles, with the kinds and the work that their times follow from.
        clock: the time in seconds.
    """

    def __init__(
        self, inner: Reporter, loops: Sequence[Planned], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.pieces = Pieces(clock=clock)
        self.pieces.plan(loops)
        stages = [Stage(name=loop.name, title=loop.name) for loop in loops]
        super().__init__(inner, stages, clock=clock)

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        """Yield the items (:meth:`minigpt.progress.Reporter.track`), in a stage if the loop is one of the run's."""
        if title not in self.names:
            yield from super().track(items, title=title, total=total)
            return
        for name in self.names[: self.names.index(title)]:  # they come in their order: what is behind never comes
            self.pieces.skip(name)
        with self.pieces.run(title, self), self.step(title) as begins, self.stage(title):
            begins()
            yield from super().track(items, title=title, total=total)
