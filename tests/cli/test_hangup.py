"""A command whose terminal closes goes on to its end, and what it would have shown stands in a log."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minigpt.cli.hangup import LONG

WORK = """
import fcntl, signal, sys, termios, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from pathlib import Path
from minigpt.cli.hangup import survive_hangup
survive_hangup(sys.argv[1])
print("begun", flush=True)
for step in range(20):
    time.sleep(0.1)
    print("step", step, flush=True)
Path(sys.argv[2]).write_text("done")
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no hang-ups")


def run_and_hang_up(command: str, tmp_path: Path) -> int:
    """Start the work in a session of its own on a new terminal, and close the terminal once it has begun."""
    outer, inner = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, command, str(tmp_path / "result")],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        env={**os.environ, "MINIGPT_HOME": str(tmp_path / "home")},
    )
    os.close(inner)
    shown = b""
    while b"begun" not in shown:
        shown += os.read(outer, 1024)
    time.sleep(0.2)
    os.close(outer)
    return process.wait(timeout=60)


def test_a_long_command_outlives_its_terminal(tmp_path: Path) -> None:
    assert "build" in LONG
    assert run_and_hang_up("build", tmp_path) == 0
    assert (tmp_path / "result").read_text() == "done"
    (log,) = (tmp_path / "home").glob("hangup-*.log")
    assert "step 19" in log.read_text()


def test_a_command_that_talks_to_the_user_ends_with_the_terminal(tmp_path: Path) -> None:
    assert run_and_hang_up("generate", tmp_path) != 0
    assert not (tmp_path / "result").exists()
