"""Kinds of faults: what each one does to a build, as a function that strikes and says what it did."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from minigpt.models import catalog
from tests.support.faults import (
    SENTENCE,
    Borders,
    Fault,
    Ground,
    Job,
    Struck,
    bordered,
    forked,
    hooked,
    judge,
    kill,
    outcome,
    start,
)

DAY = 86_400.0
# A file system with more room than any of these builds takes.
ROOMY = 256 << 20

Strike = Callable[[Ground, Random, Path], Struck]


def fail_with(number: int) -> Callable[[], None]:
    """A strike that makes this and every later operation fail."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def at_an_operation(strike: Callable[[], None]) -> Strike:
    """Strike at a random file operation of an empty folder's build."""

    def struck(ground: Ground, draw: Random, root: Path) -> Struck:
        where = draw.randint(1, ground.operations)
        first, said = forked(hooked(ground.options, root, where, strike))
        return Struck(where=where, first=first, said=said)

    return struck


def unreadable(ground: Ground, draw: Random, root: Path) -> Struck:
    """No file can be opened from some moment on, whether to be read or to be written."""
    where = draw.randint(1, 2 * ground.operations)
    first, said = forked(hooked(ground.options, root, where, fail_with(errno.EIO), reads=True))
    return Struck(where=where, first=first, said=said)


def border(ground: Ground, draw: Random, root: Path) -> Struck:
    """Kill at the border of a stage."""
    at = draw.randint(1, len(ground.borders))
    first, said = forked(bordered(ground.options, Borders(at=at, strike=kill)))
    assert first == -signal.SIGKILL, said
    return Struck(where=ground.borders[at - 1], first=first)


def every_border(ground: Ground) -> list[Fault]:
    """One fault for each border."""
    seeds = {}
    for seed in range(100 * len(ground.borders)):
        seeds.setdefault(Random(f"border {seed}").randint(1, len(ground.borders)), seed)
    return [Fault(kind="border", seed=seed) for _, seed in sorted(seeds.items())]


def force(ground: Ground, draw: Random, root: Path) -> Struck:
    """Kill a build that begins anew with --force in a finished folder, most of them while it clears it."""
    shutil.rmtree(root)
    shutil.copytree(ground.finished, root)
    where = draw.randint(1, 60 if draw.random() < 0.8 else ground.operations)
    first, said = forked(hooked(replace(ground.options, force=True), root, where, kill))
    return Struck(where=where, first=first, said=said)


def damage(change: Callable[[bytearray, int, Random], bytes]) -> Strike:
    """Damage one kept file: of a build whose stages are all finished, or of a finished one."""

    def struck(ground: Ground, draw: Random, root: Path) -> Struck:
        shutil.rmtree(root)
        is_whole = draw.random() < 0.5
        shutil.copytree(ground.finished if is_whole else ground.whole, root)
        out = root / "out"
        if not is_whole:
            shutil.rmtree(out / "model")
            for name in ("report.json", "work/sums.json"):
                (out / name).unlink(missing_ok=True)
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size]
        path = draw.choice([path for path in files if path.suffix != ".lock" and path.name != "README.md"])
        data = bytearray(path.read_bytes())
        path.write_bytes(change(data, draw.randrange(len(data)), draw))
        return Struck(where=str(path.relative_to(root)), may_refuse=True)

    return struck


def flipped(data: bytearray, place: int, draw: Random) -> bytes:
    """Flip one bit."""
    data[place] ^= 1 << draw.randrange(8)
    return bytes(data)


def cut_off(data: bytearray, place: int, _draw: Random) -> bytes:
    """Cut the file off."""
    return bytes(data[:place])


def mounted(root: Path, size: int) -> bool:
    """Put a small file system of its own at the folder; False where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(root)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def remount(root: Path, options: str) -> None:
    """Change the file system."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(root)], check=True)


def small_disk(ground: Ground, draw: Random, root: Path) -> Struck:
    """A real file system that is too small, or that becomes read-only; the second run has room."""
    size = sum(path.stat().st_size for path in ground.whole.rglob("*") if path.is_file())
    where = draw.randrange(size // 100, size)
    read_only = draw.random() < 0.25
    assert mounted(root, ROOMY if read_only else where), "needs root"
    if read_only:
        where = draw.randint(1, ground.operations)
        code, said = forked(hooked(ground.options, root, where, kill))
        assert code == -signal.SIGKILL, said
        remount(root, "ro")
    first, said = forked(lambda: outcome(ground.options))
    remount(root, f"rw,size={ROOMY}")
    return Struck(where=f"read-only after {where}" if read_only else f"{where} bytes", first=first, said=said)


def neighbours(ground: Ground, draw: Random, root: Path) -> Struck:
    """Two builds at once into two folders and one catalog, of which one may be killed; the other is as if alone."""
    other = replace(ground.options, output_dir=root / "other")
    where = draw.randint(1, ground.operations) if draw.random() < 0.5 else sys.maxsize - 1
    one = start(hooked(ground.options, root, where, kill))
    two = start(lambda: outcome(other))
    (first, said), (code, result) = one.end(), two.end()
    if (code, result) != (0, ground.result):
        return Struck(where=where, first=2, said=f"the other ended with {code}: {result}")

    def again() -> str:
        result = outcome(ground.options)
        paths = sorted(Path(entry.path).name for entry in catalog.list())
        return result if paths == ["other", "out"] else f"the catalog has {paths}"

    return Struck(where=where, first=first, said=said, again=again)


def twins(ground: Ground, draw: Random, root: Path) -> Struck:
    """The same command twice at once in one folder: one builds, the other waits for the result or is told."""
    pause = draw.uniform(0, 3)
    one = start(lambda: outcome(ground.options))
    time.sleep(pause)
    two = start(lambda: outcome(ground.options))
    ends = [one.end(), two.end()]
    wrong = [said for code, said in ends if (code, said) != (0, ground.result)]
    if len(wrong) == 2 or any("is in use by process" not in said for said in wrong):
        return Struck(where=pause, first=2, said=str(ends))
    return Struck(where=pause)


def clock(ground: Ground, draw: Random, root: Path) -> Struck:
    """The clock jumps by years, back and forth, while a build runs, is killed, and runs again."""
    real, jumps = time.time, [draw.uniform(-20, 20) * 365 * DAY for _ in range(3)]
    where = draw.randint(1, ground.operations)

    def jumping(job: Job) -> Job:
        def run() -> str:
            time.time = lambda: real() + draw.choice(jumps)  # type: ignore[assignment]
            return job()

        return run

    first, said = forked(jumping(hooked(ground.options, root, where, kill)))
    for path in root.rglob("*"):
        moment = real() + draw.choice(jumps)
        os.utime(path, (moment, moment))
    again = jumping(lambda: outcome(ground.options))
    return Struck(where=where, first=first, said=said, again=again)


def cold(ground: Ground, draw: Random, root: Path) -> Struck:
    """The command itself in a process of its own, killed at a random moment and started again."""
    options = ground.options
    settings = [part for name, value in options.overrides.items() for part in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "minigpt", "build", "--domain", options.domains[0], "--base", options.base]
    command += ["--output-dir", str(root / "out"), "--device", "cpu", "--json", *settings]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    where = draw.uniform(3, 14)
    process = subprocess.Popen(command, **quiet)
    try:
        _, said = process.communicate(timeout=where)
    except subprocess.TimeoutExpired:
        process.kill()
        _, said = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        return Struck(where=where, first=2, said=said)
    again = subprocess.run(command, check=False, **quiet)
    if again.returncode:
        return Struck(where=where, first=2, said=again.stderr)
    return Struck(where=where, first=process.returncode)


KINDS: Mapping[str, Strike] = {
    "kill": at_an_operation(kill),
    "full": at_an_operation(fail_with(errno.ENOSPC)),
    "broken": at_an_operation(fail_with(errno.EIO)),
    "flip": damage(flipped),
    "cut": damage(cut_off),
    "border": border,
    "force": force,
    "unreadable": unreadable,
    "tmpfs": small_disk,
    "neighbours": neighbours,
    "twins": twins,
    "clock": clock,
    "cold": cold,
}


def try_fault(ground: Ground, fault: Fault, root: Path) -> dict[str, Any]:
    """Strike, run the same command again, and say how it ended."""
    if os.path.ismount(root):
        subprocess.run(["umount", str(root)], check=True)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    began = time.perf_counter()
    try:
        struck = KINDS[fault.kind](ground, Random(f"{fault.kind} {fault.seed}"), root)
        end, said = judge(ground, struck)
    finally:
        if os.path.ismount(root):
            subprocess.run(["umount", str(root)], check=True)
    seconds = round(time.perf_counter() - began, 2)
    row = {"kind": fault.kind, "seed": fault.seed, "at": struck.where, "first": struck.first, "end": end}
    if struck.first == SENTENCE:
        row["sentence"] = struck.said[:300]
    return row | {"said": said[-600:], "seconds": seconds}
