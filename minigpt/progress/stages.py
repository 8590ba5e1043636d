"""Stages of a run, counted: "Stage 5 of 8: Healing", and the time that is left in all where the run's speeds say it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

from minigpt.progress import Reporter
from minigpt.progress.rates import Rates, Work, words_of_left

T = TypeVar("T")
# Seconds between two lines about the time left within a stage.
SAY_SECONDS = 120.0
# The same where a stage has several parts, such as rounds, and one begins.
PART_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage that a run will go through.

    Attributes:
        name: name of its step.
        title: its title where nothing in it has one.
    """

    name: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Record of a stage that ran: what was predicted when it began, and what came.

    Attributes:
        name: name of the stage.
        seconds: time that it took.
        kind: kind of its work; empty where its work is not counted.
        operations: its work.
        rate: operations a second that the prediction rests on; None without evidence.
        predicted: predicted time; None without evidence.
        left: predicted time of this stage and all after it; None where one of them could not be predicted.
    """

    name: str
    seconds: float
    kind: str = ""
    operations: float = 0.0
    rate: float | None = None
    predicted: float | None = None
    left: float | None = None


class Numbered:
    """Reporter that counts the stages of a run, and passes everything on to another reporter.

    Attributes:
        rates: speeds that this run measured.
        works: work of the stages, by name, as far as it is known.
        predictions: records of the stages that ran.
    """

    def __init__(
        self,
        inner: Reporter,
        stages: Sequence[Stage],
        *,
        keep: Callable[[Sequence[Prediction]], None] | None = None,
        rates: Rates | None = None,
        beyond: Callable[[], float | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inner = inner
        self.rates, self.works = Rates() if rates is None else rates, dict[str, Work]()
        # Time of what comes after these stages. Who gives it says what is left behind each of them, so that short
        # stages write no line of their own.
        self._beyond = beyond
        self.predictions: list[Prediction] = []
        self._stages, self._keep, self._clock = tuple(stages), keep, clock
        self._passed: list[str] = []
        self._left_out: set[str] = set()
        self._open: str | None = None
        self._prefix, self._depth, self._titles = "", 0, 0
        self._started = self._said = clock()
        self._done = self._there = 0.0
        # Operations of the open stage, and its time, when a loop of it ended last.
        self._mark: tuple[float, float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stages in order."""
        return tuple(stage.name for stage in self._stages)

    def weigh(self, works: Mapping[str, Work]) -> None:
        """Learn the work of stages, or better than before."""
        self.works |= works

    def discount(self, name: str) -> None:
        """Take a stage for no evidence of a speed, because a part of its work was there already."""
        self._left_out.add(name)

    def skip(self, share: float) -> None:
        """Learn that a share of the work of the stage that runs was there already."""
        if self._open is not None and share > 0:
            work = self.works.get(self._open)
            self._left_out.add(self._open)
            self._there += share * work.operations if work is not None else 0.0

    @property
    def is_whole(self) -> bool:
        """True if every stage that was passed ran here from its beginning to its end."""
        return not self._left_out and {one.name for one in self.predictions} == set(self._passed)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[], None]]:
        """Pass a stage; the function that is yielded has to be called before anything is done.

        A stage in which it is not called was there already, and the log says so. A stage that runs again has no number
        again. Steps inside a stage, and those that are none of the run's stages, do not count.
        """
        if self._open is not None or name not in self.names:
            yield _nothing
            return
        begun: list[Prediction] = []
        again = name in self._passed
        if not again:
            self._passed.append(name)
        self._open, self._titles, self._done, self._there, self._mark = name, 0, 0.0, 0.0, None
        self._prefix = "" if again else self._numbered(name)
        self._started = self._clock()
        try:
            yield lambda: begun.append(self._predict(name))
            if begun or not again:
                self._end(name, begun)
        finally:
            self._open = None

    def _numbered(self, name: str) -> str:
        """Return the beginning of the titles in a stage; a stage that turned out not to run no longer counts."""
        number = self._passed.index(name) + 1
        after = [one for one in self.names[self.names.index(name) + 1 :] if one not in self._passed]
        return f"Stage {number} of {len(self._passed) + len(after)}: "

    def _predict(self, name: str) -> Prediction:
        """Predict a stage that begins."""
        if (work := self.works.get(name)) is None:
            return Prediction(name=name, seconds=0.0, left=self.left())
        return Prediction(
            name=name,
            seconds=0.0,
            kind=work.kind,
            operations=work.operations,
            rate=self.rates.of(work.kind),
            predicted=self.rates.seconds(work),
            left=self.left(),
        )

    def _end(self, name: str, begun: Sequence[Prediction]) -> None:
        """Say how a stage ended where nothing else did, learn from its time, and keep what was predicted."""
        title = next(stage.title for stage in self._stages if stage.name == name)
        if not self._titles:
            self.inner.note(f"{self._prefix}{title}: {'nothing to do' if begun else 'there already'}.")
        if not begun:
            return
        seconds, first = self._clock() - self._started, begun[0]
        work = self.works.get(name)
        if work is not None and work.kind == "evaluate" and name not in self._left_out:
            self.rates.measure(work.kind, work.operations, seconds)
        self.predictions.append(replace(first, seconds=seconds))
        if self._keep is not None:
            self._keep(self.predictions)
        self._open = None
        if self._beyond is None:
            self._say()

    def left(self) -> float | None:
        """Predict the time of all that is left; None where the work is not known, or some of it without evidence."""
        if not self.works:
            return None
        ahead = [name for name in self.names if name not in self._passed]
        rest = self.rates.total([self.works[name] for name in ahead if name in self.works])
        here, beyond = self._left_here(), 0.0 if self._beyond is None else self._beyond()
        return None if rest is None or here is None or beyond is None else rest + here + beyond

    def _left_here(self) -> float | None:
        """Predict what is left of the stage that runs: its work less what was done, or its time less what passed."""
        work = self.works.get(self._open or "")
        if work is None:
            return 0.0
        rest = max(0.0, work.operations - self._there - self._done)
        if self._mark is not None:  # what lies between the loops takes time, too
            done, seconds = self._mark
            return rest * seconds / done
        if (whole := self.rates.seconds(work)) is None:
            return None
        if self._done or self._there:
            return whole * rest / work.operations
        return max(0.0, whole - (self._clock() - self._started))

    def _say(self) -> None:
        """Write the time that is left in all, where it is known and long enough."""
        self._said = self._clock()
        if words := words_of_left(self.left()):
            self.inner.note(f"{words}.")

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Open a stage (:meth:`Reporter.stage`), with its number in the title unless it is inside another."""
        numbered = self._open is not None and not self._depth
        self._titles += numbered
        if numbered and self._titles > 1 and self._clock() - self._said >= PART_SECONDS:
            self._say()
        self._depth += 1
        try:
            with self.inner.stage(f"{self._prefix}{title}" if numbered else title):
                yield
        finally:
            self._depth -= 1

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        """Yield the items (:meth:`Reporter.track`), and measure the speed of the work in them.

        The first item does not count, because it often pays for what later ones find ready.
        """
        before: float | None = None
        self._resume(items, title)
        for item in self.inner.track(items, title=title, total=total):
            yield item
            now = self._clock()
            self._learn(item, title, None if before is None else now - before)
            before = now
        if self._done:
            self._mark = self._done, self._clock() - self._started

    def _resume(self, items: Iterable[object], title: str) -> None:
        """Learn that a loop over steps begins in its middle, where an earlier run stopped."""
        work = self.works.get(self._open or "")
        if work is not None and isinstance(items, range) and items.start and work.loop and title.startswith(work.loop):
            self.skip(items.start * work.per_item / work.operations)

    def _learn(self, item: object, title: str, seconds: float | None) -> None:
        """Measure the work of an item of a loop."""
        work = self.works.get(self._open or "")
        if work is None:
            return
        kind, operations = work.of_item(item, title)
        if kind == work.kind:
            self._done += operations
        if operations and seconds is not None:
            self.rates.measure(kind, operations, seconds)
        if self._clock() - self._said >= SAY_SECONDS:
            self._say()

    def note(self, message: str) -> None:
        """Write one line (:meth:`Reporter.note`)."""
        self.inner.note(message)

    def detail(self, message: str) -> None:
        """Show a few words (:meth:`Reporter.detail`)."""
        self.inner.detail(message)

    def measure(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Pass the numbers of one step on (:meth:`Reporter.measure`)."""
        self.inner.measure(run, step, values)


def step(reporter: Reporter, name: str) -> AbstractContextManager[Callable[[], None]]:
    """Pass a stage of a reporter that counts them (:meth:`Numbered.step`); any other reporter hears nothing."""
    return reporter.step(name) if isinstance(reporter, Numbered) else nullcontext(_nothing)


def counted(reporter: Reporter, stages: Sequence[Stage]) -> Numbered:
    """Return a reporter that counts these stages; one that counts those of a larger run goes on with them."""
    return reporter if isinstance(reporter, Numbered) else Numbered(reporter, stages)


@contextmanager
def passing(reporter: Reporter, name: str, title: str) -> Iterator[None]:
    """Run a stage under a title, with its number if the reporter counts stages."""
    with step(reporter, name) as begins, reporter.stage(title):
        begins()
        yield


def discount(reporter: Reporter, name: str) -> None:
    """Take a stage for no evidence of a speed (:meth:`Numbered.discount`)."""
    if isinstance(reporter, Numbered):
        reporter.discount(name)


def skip(reporter: Reporter, share: float) -> None:
    """Learn that a share of the stage that runs was there already (:meth:`Numbered.skip`)."""
    if isinstance(reporter, Numbered):
        reporter.skip(share)


def is_whole(reporter: Reporter) -> bool:
    """Return whether every stage ran here from beginning to end; a reporter that counts none says so."""
    return not isinstance(reporter, Numbered) or reporter.is_whole


def _nothing() -> None:
    """Do nothing."""
    return None
