"""Share of a build's time that goes into hashing kept files and into waiting for the disk.

    python -m benchmarks.integrity --json OUT [--folder DIR] [-- BUILD OPTIONS]

One build runs in this process, while the clock runs around every hash of a file and every `fsync`. Both shares are of
the same build's time, so that a busy machine slows all parts of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Watch:
    """Calls of a function, and the seconds that they took.

    Attributes:
        calls: number of calls.
        seconds: wall time of all of them.
        bytes: size of the files that they were about.
    """

    calls: int = 0
    seconds: float = 0.0
    bytes: int = 0

    def around(self, function: Callable[..., Any], size: Callable[..., int]) -> Callable[..., Any]:
        """Return the function with the clock around it."""

        def watched(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.seconds += time.perf_counter() - started
                self.calls += 1
                self.bytes += size(*given)

        return watched


def watch() -> dict[str, Watch]:
    """Put clocks around hashing and syncing; call it before any module of minigpt has been imported."""
    import minigpt.files as files

    assert "minigpt.integrity" not in sys.modules, "modules that are loaded already hold the plain functions"
    watches = {"hash": Watch(), "fsync": Watch()}
    files.file_sha256 = watches["hash"].around(files.file_sha256, lambda path: path.stat().st_size)
    os.fsync = watches["fsync"].around(os.fsync, lambda descriptor: os.fstat(descriptor).st_size)
    from minigpt.healing import checkpoint

    def size(_progress: str, tensors: Mapping[str, Any]) -> int:
        return sum(tensor.nbytes for tensor in tensors.values())

    checkpoint._digest = watches["hash"].around(checkpoint._digest, size)
    return watches


def main() -> None:
    """Build once, and write the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--folder", type=Path, help="folder of the build (a temporary one, removed afterwards)")
    parser.add_argument("build", nargs="*", help="further options of minigpt build, behind --")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="minigpt-integrity-"))
    watches = watch()
    from minigpt.cli import cli

    started, cpu = time.perf_counter(), time.process_time()
    command = ["build", "--domain", "medical", "--output-dir", str(folder / "build"), *options.build]
    finished = False
    try:  # a build that is interrupted has shares, too
        cli.main(command, standalone_mode=False)
        finished = True
    finally:
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        write(options.json, shares(watches, seconds), [*command[:3], *options.build], seconds, cpu, finished)
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def shares(watches: Mapping[str, Watch], seconds: float) -> dict[str, Any]:
    """Return what each watch saw, and its share of the build's time."""
    return {
        name: {"calls": one.calls, "seconds": one.seconds, "bytes": one.bytes, "share": one.seconds / seconds}
        for name, one in watches.items()
    }


def write(
    path: Path, rows: Mapping[str, Any], command: list[str], seconds: float, processor: float, finished: bool
) -> None:
    """Write the result, and show it."""
    total = sum(row["share"] for row in rows.values())
    about = {"command": command, "finished": finished, "seconds": seconds, "processor_seconds": processor}
    text = json.dumps({**about, **rows, "share": total}, indent=1)
    path.write_text(text + "\n", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
