"""Pieces of work as a worker sees them: it pulls one after the other until all are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minigpt import locks
from minigpt.files import write_json
from minigpt.workers.crew import Piece

# Seconds between two attempts at pieces that others have claimed.
PAUSE = 0.5
# Folder of the locks of pieces.
CLAIMS = "claims"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A piece of work.

    Attributes:
        name: its name, which is also that of its marker.
        lock: file by which a worker claims it; its process's end gives it back.
        run: does it, or returns at once if it is done; returns the part of its time that says how long others like it
            take, or None.
    """

    name: str
    lock: Path
    run: Callable[[], float | None]


def claim_of(done: Path, name: str) -> Path:
    """Return the lock of a piece beside the folder of the markers."""
    return done.with_name(CLAIMS) / f"{name}.lock"


def pull(jobs: Sequence[Job], done: Path, worker: str) -> None:
    """Do every piece that nobody has claimed, and wait for those of others, which may yet be given back.

    Args:
        jobs: all pieces, in the order in which they are tried.
        done: folder of the markers of finished pieces.
        worker: name of this worker.
    """
    left = list(jobs)
    while left:
        before = len(left)
        left = [job for job in left if not _is_done(job, done) and not _done_here(job, done, worker)]
        if len(left) == before:
            time.sleep(PAUSE)


def _is_done(job: Job, done: Path) -> bool:
    """Return whether a worker has marked the piece."""
    return (done / f"{job.name}.json").exists()


def _done_here(job: Job, done: Path, worker: str) -> bool:
    """Claim the piece, do it and mark it; return False if another worker has claimed it."""
    try:
        with locks.hold(job.lock, job.name):
            if _is_done(job, done):
                return True
            started = time.monotonic()
            own = job.run()
            seconds = time.monotonic() - started
            write_json(done / f"{job.name}.json", Piece(name=job.name, worker=worker, seconds=seconds, own=own))
    except locks.Busy:
        return False
    return True
