"""Time of work that comes in pieces, such as the points of a sweep: what finished pieces took predicts the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heapify, heapreplace

from minigpt.progress import Reporter
from minigpt.progress.rates import Rates, Work, words_of_left
from minigpt.progress.stages import is_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A piece of work that is planned.

    Attributes:
        name: its name.
        kinds: kinds by which its time follows from that of finished pieces, the nearest first.
        works: work of its stages, as far as it is known.
    """

    name: str
    kinds: tuple[str, ...] = ()
    works: tuple[Work, ...] = ()

    @property
    def weight(self) -> float:
        """Operations of its work, to which its time is taken to be proportional; 1 where they are not known."""
        return sum(work.operations for work in self.works) or 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A piece that is finished, and the time that it took."""

    piece: Planned
    seconds: float


def expected(piece: Planned, finished: Sequence[Timed], rates: Rates | None = None) -> float | None:
    """Predict the time of a piece; None without evidence.

    Finished pieces of its nearest kind say how long a piece of its weight takes. The first of a kind does not count
    where there are others, because it often pays for what later ones find ready. Before any is finished, the measured
    speed of each kind of work says it; one kind stands for another only within a piece, because the error would
    multiply.

    Args:
        piece: the piece.
        finished: pieces that ran whole, in their order.
        rates: speeds that were measured.
    """
    for kind in piece.kinds:
        alike = [one for one in finished if kind in one.piece.kinds]
        evidence = alike[1:] or alike
        if evidence:
            return piece.weight * sum(one.seconds for one in evidence) / sum(one.piece.weight for one in evidence)
    return rates.total(piece.works, own=True) if rates is not None and piece.works else None


def total(pieces: Iterable[Planned], finished: Sequence[Timed], rates: Rates | None = None) -> float | None:
    """Predict the time of pieces one after the other; None if one of them cannot be predicted."""
    times = [expected(piece, finished, rates) for piece in pieces]
    known = [seconds for seconds in times if seconds is not None]
    return sum(known) if len(known) == len(times) else None


def in_turns(seconds: Sequence[float], busy: Sequence[float]) -> float:
    """Return the time until all pieces are done by workers of which each takes the next one when it is free.

    This is list scheduling (Graham 1969, Bounds on multiprocessing timing anomalies).

    Args:
        seconds: time of each piece that is not done, in the order in which they are taken; the workers are at the
            first ones now.
        busy: for each worker, the time that it has spent on its piece already.
    """
    running = zip(seconds, sorted(busy, reverse=True), strict=False)
    free = [max(0.0, whole - spent) for whole, spent in running]
    heapify(free)
    for whole in seconds[len(free) :]:
        if not free:
            return sum(seconds)
        heapreplace(free, free[0] + whole)
    return max(free, default=0.0)


class Pieces:
    """Pieces of a run, and the times of those that are finished.

    Attributes:
        rates: speeds that all of them measured.
        finished: pieces that ran whole, in their order.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.rates, self.finished = Rates(), list[Timed]()
        self._clock, self._passed = clock, set[str]()
        self._planned: dict[str, Planned] = {}

    def plan(self, pieces: Iterable[Planned]) -> None:
        """Learn which pieces the run goes through, or more about them than before."""
        self._planned |= {piece.name: piece for piece in pieces}

    def skip(self, name: str) -> None:
        """Pass a piece that was there already."""
        self._passed.add(name)

    @contextmanager
    def run(self, name: str, reporter: Reporter) -> Iterator[None]:
        """Run a piece, learn from its time, and say what is left in all.

        Args:
            name: its name.
            reporter: of the piece's stages; a piece of which a stage was there already is no evidence.
        """
        self._passed.add(name)
        began = self._clock()
        yield
        if is_whole(reporter):
            piece = self._planned.get(name, Planned(name=name))
            self.finished.append(Timed(piece=piece, seconds=self._clock() - began))
        if words := words_of_left(self.left()):
            reporter.note(f"{words}.")

    def seconds_of(self, name: str) -> float | None:
        """Return the time of a piece; None if it did not run whole."""
        return next((one.seconds for one in self.finished if one.piece.name == name), None)

    def left(self) -> float | None:
        """Predict the time of all pieces that have not begun; None if one of them cannot be predicted."""
        ahead = [piece for name, piece in self._planned.items() if name not in self._passed]
        return total(ahead, self.finished, self.rates)
