"""Locks of folders that two processes must not write at once, which end with their process, however it ends.

The operating system holds the lock, so a crash or a power cut frees it. Beside it stands a record of the owner (host,
process, since when) whose time is renewed: it names the owner in messages, and it is what other hosts go by where the
file system does not carry locks between hosts.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from minigpt.errors import MiniGPTError
from minigpt.files import read_json, write_json

# Seconds between two renewals of the record, and after which an unrenewed record of another host no longer counts.
BEAT_SECONDS = 15.0
STALE_SECONDS = 120.0
# Seconds of one attempt of a process that waits for a lock.
WAIT_SECONDS = 2.0


class Busy(MiniGPTError):
    """A folder that another process is writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The holder of a lock.

    Attributes:
        host: name of its machine.
        pid: its process.
        since: time at which it took the lock.
    """

    host: str
    pid: int
    since: str


@contextmanager
def hold(path: Path, what: str, *, timeout: float = 0.0) -> Iterator[None]:
    """Hold the lock at `path` inside the block.

    Args:
        path: file of the lock; the record of its owner is `path` with the suffix `.json`.
        what: what is locked, as the subject of the message.
        timeout: seconds to wait for another process.

    Raises:
        Busy: another process holds the lock.
        MiniGPTError: the lock cannot be written.
    """
    from filelock import FileLock, Timeout

    record = path.with_suffix(".json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=timeout)
    except Timeout:
        raise Busy(f"{what} is in use by {_name(record)}. Wait until it is done, or choose another folder.") from None
    except (OSError, RuntimeError) as error:  # the second where a file system has no locks
        reason = getattr(error, "strerror", None) or error
        raise MiniGPTError(f"Cannot write {path.parent}: {reason}. Choose a folder that you can write to.") from error
    try:
        if _is_alive_elsewhere(record, path):
            raise Busy(f"{what} is in use by {_name(record)}. Wait until it is done, or choose another folder.")
        with _beating(record):
            yield
    finally:
        lock.release()


@contextmanager
def wait_for(path: Path, what: str) -> Iterator[None]:
    """Hold the lock at `path` inside the block, however long another process has it before.

    Args:
        path: file of the lock, as for :func:`hold`.
        what: what is locked.

    Raises:
        MiniGPTError: the lock cannot be written.
    """
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold(path, what, timeout=WAIT_SECONDS))
                break
            except Busy:
                time.sleep(WAIT_SECONDS / 10)
        yield


@contextmanager
def _beating(record: Path) -> Iterator[None]:
    """Keep the record of the owner while the block runs."""
    write_json(
        record, Owner(host=socket.gethostname(), pid=os.getpid(), since=datetime.now(UTC).isoformat("T", "seconds"))
    )
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with suppress(OSError):
                os.utime(record)

    thread = threading.Thread(target=beat, name="lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(OSError):
            record.unlink()


def _is_alive_elsewhere(record: Path, lock: Path) -> bool:
    """Return whether another host renewed the record a short while ago, by the clock of the file system."""
    try:
        owner = read_json(record, Owner)
        os.utime(lock)
        age = lock.stat().st_mtime - record.stat().st_mtime
    except (MiniGPTError, OSError):
        return False
    return owner.host != socket.gethostname() and age < STALE_SECONDS


def _name(record: Path) -> str:
    """Name the owner of a lock for a message."""
    try:
        owner = read_json(record, Owner)
    except (MiniGPTError, OSError):
        return "another process"
    return f"process {owner.pid} on {owner.host} (since {owner.since})"
