"""One worker: `python -m minigpt.workers TASK.json NUMBER`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from minigpt import environment
from minigpt.errors import MiniGPTError
from minigpt.files import read_json
from minigpt.lazy import resolve
from minigpt.workers.crew import DONE, WORK, Task
from minigpt.workers.status import StatusReporter


def main(path: Path, number: int) -> int:
    """Do what the task says until nothing is left, and return the exit code."""
    environment.silence_libraries()
    environment.share_cores()
    task = read_json(path, Task)
    os.chdir(task.here)
    try:
        reporter = StatusReporter(path.with_name(f"worker-{number}.json"), sys.stdout)
        resolve(WORK[task.work])(task.options, path.with_name(DONE), str(number), reporter)
    except MiniGPTError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), int(sys.argv[2])))
