"""Run a list of commands on the cards of one machine, several to a card, and go on where an earlier call ended.

    python benchmarks/card_jobs.py benchmarks/ticket_jobs.jsonl --work DIR --set data=DATA --cards 0,1 --seconds 560

Several lists are one, in their order. A line of a list is a job: `name`, `command`, and optionally `after` (jobs that
must be finished), `cards` (how many it needs) and `places` (how many of a card's places it takes; 0: all of them).
Words in braces are replaced: those of `--set`, `work`, `python`, and those of a list's first line, if that has `words`.
The order of the list is the order of importance. A job that is cut off by the end of a call is interrupted, so that it
can write a checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from minigpt import locks
from minigpt.files import read_jsonl, write_json

# Seconds that interrupted jobs have to write a checkpoint, and between two looks at the running ones.
GRACE, LOOK = 20.0, 0.2
# How often words are replaced in words.
DEPTH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command and the room that it takes.

    Attributes:
        name: its name, which names its log and its marker.
        command: command line for the shell.
        after: jobs that must be finished before it.
        cards: number of cards that it needs.
        places: places of each of these cards that it takes; 0 takes all of them.
        least: seconds that must be left for it to begin.
    """

    name: str
    command: str
    after: tuple[str, ...] = ()
    cards: int = 1
    places: int = 1
    least: float = 60.0


@dataclass(slots=True, kw_only=True)
class Running:
    """A job that runs, the cards that it has, and when it began."""

    job: Job
    cards: tuple[str, ...]
    process: subprocess.Popen[bytes]
    began: float


def read_jobs(paths: Sequence[Path], values: Mapping[str, str]) -> list[Job]:
    """Read lists of jobs, and replace the words in braces.

    Raises:
        ValueError: two jobs have one name, a job waits for one that is in no list, or a word has no text.
    """
    jobs = [job for path in paths for job in _read_list(path, values)]
    names = [job.name for job in jobs]
    if len(set(names)) < len(names):
        raise ValueError(f"{paths[-1]}: two jobs have one name")
    if unknown := {name for job in jobs for name in job.after} - set(names):
        raise ValueError(f"{paths[-1]}: no job is called {', '.join(sorted(unknown))}")
    return jobs


def _read_list(path: Path, values: Mapping[str, str]) -> list[Job]:
    """Read one list."""
    lines = read_jsonl(path)
    words = dict(lines.pop(0)["words"]) if lines and "words" in lines[0] else {}
    words |= values
    jobs = []
    for line in lines:
        job = Job(**{**line, "after": tuple(line.get("after", ()))})
        command = job.command
        for _ in range(DEPTH):
            for word, text in words.items():
                command = command.replace("{" + word + "}", text)
        if left := re.findall(r"\{(\w+)\}", command):
            raise ValueError(f"{path}: {job.name} needs --set {left[0]}=TEXT")
        jobs.append(replace(job, command=command))
    return jobs


def next_start(
    jobs: Sequence[Job], finished: Collection[str], busy: Collection[str], free: Mapping[str, int], places: int
) -> tuple[Job, tuple[str, ...]] | None:
    """Return the first job that can begin, with the emptiest cards for it, or None.

    A job that needs more cards than are free keeps those behind it from beginning, or else it might never have them.

    Args:
        jobs: the list, the most important first.
        finished: names of jobs that are finished.
        busy: names of jobs that run or have failed.
        free: free places of each card.
        places: places of a whole card.
    """
    for job in jobs:
        if job.name in finished or job.name in busy or not set(job.after) <= set(finished):
            continue
        needed = job.places or places
        cards = sorted((card for card, left in free.items() if left >= needed), key=lambda card: -free[card])
        if len(cards) >= job.cards:
            return job, tuple(cards[: job.cards])
        if job.cards > 1 and job.cards <= len(free):
            return None
    return None


def _listen() -> None:
    """Let a job hear interrupts, also where the runner was started with `&` and does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Runner:
    """Jobs on cards, for a number of seconds.

    Args:
        jobs: the list.
        work: folder of markers and logs.
        cards: names of the cards.
        places: places of each card.
        seconds: time of this call.
        only: names of the jobs that are run, in their order; None runs all. The others may be finished already.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        work: Path,
        cards: Sequence[str],
        places: int,
        seconds: float,
        only: Sequence[str] | None = None,
    ) -> None:
        named = {job.name: job for job in jobs}
        self.jobs = list(jobs) if only is None else [named[name] for name in only]
        self.work, self.places = work, places
        self.started, self.seconds = time.monotonic(), seconds
        self.free = dict.fromkeys(cards, places)
        self.running: list[Running] = []
        self.failed: dict[str, int] = {}
        for folder in ("done", "logs"):
            (work / folder).mkdir(parents=True, exist_ok=True)
        commands = {job.name: job.command for job in jobs}
        markers = {path.stem: json.loads(path.read_text("utf-8")) for path in (work / "done").glob("*.json")}
        self.finished = {name for name, mark in markers.items() if mark["command"] == commands.get(name)}

    def never(self) -> set[str]:
        """Return the jobs that others wait for, and that are neither finished nor run."""
        return {name for job in self.jobs for name in job.after} - self.finished - {job.name for job in self.jobs}

    @property
    def left(self) -> float:
        """Seconds until this call ends."""
        return self.seconds - (time.monotonic() - self.started)

    def run(self) -> None:
        """Run jobs until none is left or the time is over; interrupt those that still run then."""
        try:
            while self.left > GRACE:
                self._collect()
                self._begin()
                if not self.running:
                    break
                time.sleep(LOOK)
        finally:
            self._end()

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self.started:6.0f} s  {text}", flush=True)

    def _begin(self) -> None:
        """Start all jobs that have room."""
        while True:
            busy = {one.job.name for one in self.running} | self.failed.keys()
            late = {job.name for job in self.jobs if job.least > self.left}
            if (found := next_start(self.jobs, self.finished, busy | late, self.free, self.places)) is None:
                return
            job, cards = found
            for card in cards:
                self.free[card] -= job.places or self.places
            with (self.work / "logs" / f"{job.name}.log").open("ab") as log:
                process = subprocess.Popen(
                    ["bash", "-c", job.command],
                    env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(cards), "PYTHONUNBUFFERED": "1"},
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                    preexec_fn=_listen,
                )  # fmt: skip
            self.running.append(Running(job=job, cards=cards, process=process, began=time.monotonic()))
            self._say(f"{job.name} begins on {', '.join(cards)}")

    def _collect(self) -> None:
        """Note the jobs that have ended."""
        for one in [one for one in self.running if one.process.poll() is not None]:
            self.running.remove(one)
            for card in one.cards:
                self.free[card] += one.job.places or self.places
            seconds, name = time.monotonic() - one.began, one.job.name
            if one.process.returncode == 0:
                self.finished.add(name)
                write_json(
                    self.work / "done" / f"{name}.json", {"seconds": round(seconds, 1), "command": one.job.command}
                )
                self._say(f"{name} is finished after {seconds:.0f} s")
            else:
                self.failed[name] = one.process.returncode
                self._say(f"{name} failed after {seconds:.0f} s: see its log")

    def _end(self) -> None:
        """Interrupt what still runs, and end what does not listen."""
        for one in self.running:
            with suppress(ProcessLookupError):
                os.killpg(one.process.pid, signal.SIGINT)
        until = time.monotonic() + GRACE
        for one in self.running:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.1, until - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(one.process.pid, signal.SIGKILL)
            self._say(f"{one.job.name} is cut off after {time.monotonic() - one.began:.0f} s")


def main() -> None:
    """Run the jobs of a list that are not finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", type=Path, nargs="+", help="lists of jobs, JSON lines")
    parser.add_argument("--work", type=Path, required=True, help="folder of markers and logs, and of the jobs' files")
    parser.add_argument("--set", action="append", default=[], metavar="WORD=TEXT", help="text of a word in braces")
    parser.add_argument("--cards", default="0", help="names of the cards, comma-separated")
    parser.add_argument("--places", type=int, default=3, help="jobs that share a card")
    parser.add_argument("--only", help="names of the jobs that are run, in this order, comma-separated [all]")
    parser.add_argument("--seconds", type=float, default=1e9, help="time of this call")
    options = parser.parse_args()
    values = dict(pair.split("=", 1) for pair in options.set)
    jobs = read_jobs(options.jobs, {"work": str(options.work), "python": sys.executable, **values})
    only = options.only.split(",") if options.only is not None else None
    if unknown := set(only or ()) - {job.name for job in jobs}:
        parser.error(f"no job is called {', '.join(map(repr, sorted(unknown)))}")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    runner = Runner(jobs, options.work, options.cards.split(","), options.places, options.seconds, only)
    if missing := runner.never():
        parser.error(f"--only leaves out jobs that are waited for: {', '.join(sorted(missing))}")
    with locks.hold(options.work / ".in_use.lock", str(options.work), timeout=0):
        runner.run()
    open_ones = [job.name for job in runner.jobs if job.name not in runner.finished]
    print(json.dumps({"finished": sorted(runner.finished), "open": open_ones, "failed": runner.failed}))
    sys.exit(1 if runner.failed else 0)


if __name__ == "__main__":
    main()
