"""Faults on purpose: builds in forked processes that are killed, find a full disk, or find what they kept damaged.

A fault is a kind and a seed. The same command runs after it, undisturbed, and must end with the result of a build that
nothing disturbed, or with one sentence.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from minigpt.errors import MiniGPTError
from minigpt.healing import run as training
from minigpt.models import catalog
from minigpt.pipeline import BuildOptions
from tests.support.building import build, folder_of

# Operations on files that a fault may hit, as the interpreter's audit events name them.
OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.copyfile", "tempfile.mkdtemp")
FULL, BROKEN = errno.ENOSPC, errno.EIO
# Exit code of a forked build that ended with a sentence of ours.
SENTENCE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        kind: kill, full, broken, flip or cut.
        seed: decides where it strikes.
    """

    kind: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all faults start from.

    Attributes:
        options: the build.
        result: what it must end with.
        operations: how many file operations it takes.
        whole: a copy of a folder, and of the home, of which every stage is finished but not the build.
    """

    options: BuildOptions
    result: str
    operations: int
    whole: Path


def outcome(options: BuildOptions) -> str:
    """Run the build, and put everything that counts into one hash: metrics of all stages and the weights."""
    report = build(options)
    weights = (folder_of(options) / "model" / "model.safetensors").read_bytes()
    metrics = json.dumps([[str(metric) for metric in stage.metrics] for stage in report.stages])
    return hashlib.sha256(metrics.encode() + weights).hexdigest()


def forked(job: Callable[[], str]) -> tuple[int, str]:
    """Run `job` in a forked process; return its exit code (minus the signal) and what it returned or said."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code, said = 2, ""
        try:
            code, said = 0, job()
        except MiniGPTError as error:
            code, said = SENTENCE, str(error)
        except BaseException:
            said = traceback.format_exc()
        finally:
            os.write(writer, said.encode("utf-8", "replace")[:60_000])
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read().decode("utf-8", "replace")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


class Hook:
    """Audit hook that counts file operations under a folder, and strikes at one of them."""

    def __init__(self, root: Path, at: int, strike: Callable[[], None]) -> None:
        self.root, self.at, self.strike, self.count = str(root), at, strike, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in OPERATIONS) and any(self.root in str(part) for part in arguments):
            self.count += 1
            if self.count >= self.at:
                self.strike()


def hooked(ground_options: BuildOptions, root: Path, at: int, strike: Callable[[], None]) -> Callable[[], str]:
    """A job: the build, with a fault at a file operation under `root`."""

    def job() -> str:
        training.CHECKPOINT_SECONDS = 0.0
        hook = Hook(root, at, strike)
        sys.addaudithook(hook)
        result = outcome(ground_options)
        return result if at < sys.maxsize else str(hook.count)

    return job


def kill() -> None:
    """End this process without warning."""
    os.kill(os.getpid(), signal.SIGKILL)


def failing(number: int) -> Callable[[], None]:
    """A strike that makes this and every later operation fail."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def make_ground(options: BuildOptions, root: Path) -> Ground:
    """Build once undisturbed, count the operations, and keep a copy of the folder just before its last step."""
    root.mkdir()
    os.environ["MINIGPT_HOME"] = str(root / "home")
    options = replace(options, output_dir=root / "out")
    code, result = forked(lambda: outcome(options))
    assert code == 0, result
    shutil.rmtree(root)
    root.mkdir()
    code, counted = forked(hooked(options, root, sys.maxsize, kill))
    assert code == 0, counted
    shutil.rmtree(root)
    root.mkdir()

    def stopped() -> str:
        training.CHECKPOINT_SECONDS = 0.0
        add, catalog.add = catalog.add, kill_at_once  # type: ignore[assignment]
        return outcome(options) + str(add)

    code, _ = forked(stopped)
    assert code == -signal.SIGKILL
    whole = root.with_name("whole")
    shutil.copytree(root, whole)
    return Ground(options=options, result=result, operations=int(counted), whole=whole)


def kill_at_once(_folder: Path) -> None:
    """Stand in for the step that is never reached."""
    kill()


def damaged(ground: Ground, root: Path, draw: Random, kind: str) -> str:
    """Flip a bit of one kept file, or cut it off; return its name."""
    home, out = root / "home", root / "out"
    if draw.random() < 0.5:  # of a finished build, too
        code, said = forked(lambda: outcome(ground.options))
        assert code == 0 and said == ground.result
    else:
        shutil.rmtree(out / "model")
        for name in ("report.json", "work/sums.json"):
            (out / name).unlink(missing_ok=True)
    files = [path for path in (*sorted(home.rglob("*")), *sorted(out.rglob("*"))) if path.is_file()]
    files = [path for path in files if path.stat().st_size and path.suffix != ".lock" and path.name != "README.md"]
    path = draw.choice(files)
    data = bytearray(path.read_bytes())
    place = draw.randrange(len(data))
    if kind == "flip":
        data[place] ^= 1 << draw.randrange(8)
    path.write_bytes(data if kind == "flip" else data[:place])
    return str(path.relative_to(root))


def try_fault(ground: Ground, fault: Fault, root: Path) -> dict[str, Any]:
    """Strike, run the same command again, and say how it ended: same, sentence, lost or silent."""
    draw = Random(f"{fault.kind} {fault.seed}")
    shutil.rmtree(root, ignore_errors=True)
    where: object
    if fault.kind in ("flip", "cut"):
        shutil.copytree(ground.whole, root)
        where = damaged(ground, root, draw, fault.kind)
        first = 0
    else:
        root.mkdir()
        where = draw.randint(1, ground.operations)
        strike = kill if fault.kind == "kill" else failing(FULL if fault.kind == "full" else BROKEN)
        first, said = forked(hooked(ground.options, root, where, strike))
        if first == 0 and said != ground.result:
            return {"kind": fault.kind, "seed": fault.seed, "at": where, "end": "silent", "said": said[:300]}
        if first == 2:
            return {"kind": fault.kind, "seed": fault.seed, "at": where, "end": "traceback", "said": said[-600:]}
    code, said = forked(lambda: outcome(ground.options))
    if code == 0:
        end = "same" if said == ground.result else "silent"
    else:
        end = "sentence" if code == SENTENCE and fault.kind in ("flip", "cut") and "\n" not in said else "lost"
    return {"kind": fault.kind, "seed": fault.seed, "at": where, "first": first, "end": end, "said": said[-600:]}
