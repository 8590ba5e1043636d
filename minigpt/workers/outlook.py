"""Outlook of a crew: the time until its workers have done all pieces, by the times of those that are done."""

from __future__ import annotations

from collections.abc import Sequence

from minigpt.progress.pieces import Planned, Timed, expected, in_turns


class Outlook:
    """Pieces of a crew, and what is known about their times.

    Args:
        pieces: all pieces, in the order in which they are taken.
        began: time at which the workers were started, in seconds since the epoch, as all times here.
    """

    def __init__(self, pieces: Sequence[Planned], *, began: float) -> None:
        self._planned = {piece.name: piece for piece in pieces}
        self._began = began
        self._done: set[str] = set()
        self._timed: list[Timed] = []
        # Time at which each worker ended its last piece.
        self._free: dict[str, float] = {}

    def learn(self, name: str, worker: str, own: float | None, *, at: float) -> None:
        """Learn of a finished piece.

        Args:
            name: its name.
            worker: name of the worker that did it.
            own: the part of its time that says how long others like it take; None where it says nothing.
            at: time of its end.
        """
        self._done.add(name)
        self._free[worker] = max(at, self._free.get(worker, at))
        if own is not None and name in self._planned:
            self._timed.append(Timed(piece=self._planned[name], seconds=own))

    def left(self, workers: int, *, now: float) -> float | None:
        """Predict the time until all pieces are done; None without evidence.

        Pieces without kinds are done in the end, and take no time to speak of. A worker that has done no piece yet is
        at its first since the start.

        Args:
            workers: number of workers that still run.
            now: time of the question.
        """
        ahead = [piece for name, piece in self._planned.items() if name not in self._done and piece.kinds]
        times = [expected(piece, self._timed) for piece in ahead]
        known = [seconds for seconds in times if seconds is not None]
        since = sorted(self._free.values(), reverse=True)[:workers]
        since += [self._began] * (workers - len(since))
        return in_turns(known, [now - begun for begun in since]) if len(known) == len(times) else None
