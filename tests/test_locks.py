"""Locks: one process at a time, named to the others, and gone with its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minigpt import locks
from minigpt.locks import Busy, Owner, hold

HOLD = """
import sys, time
from pathlib import Path
from minigpt.locks import hold
with hold(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_holds_it_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match=rf"^It is in use by process {other.pid} on "), hold(path, "It"):
            pytest.fail("two hold the lock")
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert path.with_suffix(".json").exists()  # the record of the killed process
    with hold(path, "It"):
        assert json.loads(path.with_suffix(".json").read_text())["pid"] == os.getpid()
    assert not path.with_suffix(".json").exists()


def test_two_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    with hold(tmp_path / "a.lock", "It"), pytest.raises(Busy), hold(tmp_path / "a.lock", "It"):
        pytest.fail("two hold the lock")


@pytest.mark.parametrize(("age", "busy"), [(5.0, True), (locks.STALE_SECONDS + 60, False)])
def test_another_host_counts_while_it_renews_its_record(tmp_path: Path, age: float, busy: bool) -> None:
    """A file system that carries no locks between hosts grants ours while the other host works."""
    record = tmp_path / "a.json"
    locks.write_json(record, Owner(host="somewhere-else", pid=1, since="2026-01-01T00:00:00+00:00"))
    os.utime(record, (time.time() - age,) * 2)
    if busy:
        with pytest.raises(Busy, match="process 1 on somewhere-else"), hold(tmp_path / "a.lock", "It"):
            pytest.fail("two hold the lock")
    else:
        with hold(tmp_path / "a.lock", "It"):
            pass


def test_the_record_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.02)
    record = tmp_path / "a.json"
    with hold(tmp_path / "a.lock", "It"):
        os.utime(record, (1, 1))
        until = time.monotonic() + 10
        while record.stat().st_mtime < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert record.stat().st_mtime > 2
