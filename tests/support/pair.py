"""Two processes that work together: the test's own, and one that helps it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minigpt.distributed import set_current
from minigpt.distributed.group import END, Group, start, stop
from minigpt.distributed.jobs import serve
from minigpt.distributed.place import Place

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def addresses(rank: int, world: int, port: int) -> dict[str, str]:
    """Environment variables that torchrun sets."""
    numbers = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in numbers.items()}}


@contextmanager
def pair() -> Iterator[Group]:
    """Meet one helper; the group is not the current one until the test makes it so."""
    port = free_port()
    before = dict(os.environ)
    code = "from tests.support.pair import help_out; help_out()"
    environment = {**before, **addresses(1, 2, port), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    helper = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=ROOT)
    try:
        os.environ.update(addresses(0, 2, port))
        group = start(Place(rank=0, world=2))
        yield group
        group.announce(END)
        assert helper.wait(60) == 0
    finally:
        set_current(None)
        stop()
        helper.kill()
        helper.wait()
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def current(group: Group) -> Iterator[None]:
    """Let everything inside the block work on both processes."""
    set_current(group)
    try:
        yield
    finally:
        set_current(None)


def help_out() -> None:
    """Serve the first process until it announces the end."""
    group = start(Place(rank=1, world=2, local=1))
    set_current(group)
    serve(group)
    stop()
