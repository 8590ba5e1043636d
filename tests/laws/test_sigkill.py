"""A build whose process is killed outright, again and again, ends with the result of one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.worlds import CONTROL, SMALL, World, make_world

STAGES = ("corpus", "measured_parent", "tuned_first", "sampled", "tuned", "plan", "pruned", "measured_pruned")
SETTINGS = {**SMALL, **CONTROL, "text.sampled": "3"}
PATIENCE = 240


def command(world: World, folder: str) -> list[str]:
    """The same command line every time."""
    settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    places = ["--domain", str(world.domain), "--base", str(world.base), "--output-dir", str(world.root / folder)]
    return [sys.executable, "-m", "minigpt", "build", *places, "--device", "cpu", "--json", *settings]


def start(world: World, folder: str) -> subprocess.Popen[bytes]:
    """A build in a process of its own."""
    environment = {**os.environ, "MINIGPT_HOME": str(world.root / f"home-{folder}"), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command(world, folder), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)


def killed_when(path: Path, build: subprocess.Popen[bytes]) -> None:
    """Wait for a file, then kill the process without warning."""
    until = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < until:
        assert build.poll() is None, f"the build ended before {path.name} appeared"
        time.sleep(0.02)
    build.send_signal(signal.SIGKILL)
    assert build.wait() == -signal.SIGKILL
    assert path.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_process_loses_no_finished_stage(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    work = world.root / "killed" / "work"
    stamps: dict[str, int] = {}
    for stage in STAGES:
        killed_when(work / stage / "done.json", start(world, "killed"))
        for earlier, stamp in stamps.items():
            assert (work / earlier / "done.json").stat().st_mtime_ns == stamp, f"{earlier} was made again"
        stamps[stage] = (work / stage / "done.json").stat().st_mtime_ns
    reports = {}
    for folder in ("killed", "alone"):
        build = start(world, folder)
        told, _ = build.communicate(timeout=PATIENCE)
        assert build.returncode == 0
        reports[folder] = json.loads(told)
        assert not list((world.root / folder).rglob(".*.tmp*"))
    weights = [(world.root / folder / "model" / "model.safetensors").read_bytes() for folder in reports]
    assert weights[0] == weights[1]
    killed, alone = ([stage["metrics"] for stage in reports[folder]["stages"]] for folder in ("killed", "alone"))
    assert killed == alone
