"""Speed, memory and size of models in their runtimes, measured side by side.

The machine is shared with whatever else runs on it, so models take turns: every repeat measures each of them once, and
the median is kept. Memory is that of a fresh process for each model, for a process gives no memory back.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from minigpt.errors import MiniGPTError
from minigpt.progress import SILENT, Reporter

if TYPE_CHECKING:
    from minigpt.runtimes import Runtime

SCHEMA_VERSION = 1
COMPARED = ("bytes", "load_seconds", "peak_memory", "prefill", "decode")
TEXT = (
    "The heart is a muscular organ that pumps blood through the vessels of the body, and the law of supply says that a "
    "higher price brings more of a good to the market, other things being equal. "
)
PROBE = """import sys
from minigpt import errors, files
from minigpt.models import bench
ref, device, prompt = sys.argv[1:]
try:
    found = bench.probe(ref, device, int(prompt))
except errors.MiniGPTError as error:
    sys.exit(str(error))
sys.stdout.write(files.dumps(found).replace(chr(10), " ") + chr(10))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is timed: reading `prompt` tokens at once, then `decode` tokens one by one, `repeats` times."""

    prompt: int = 256
    decode: int = 64
    repeats: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One model's medians: tokens a second, seconds to load, bytes on disk and the peak of resident memory.

    `ratios` divide each figure by the first model's of the same run; `samples` are the decode speeds of every repeat.
    """

    name: str
    runtime: str
    parameters: int
    bytes: int
    load_seconds: float
    peak_memory: int
    prefill: float
    decode: float
    samples: tuple[float, ...]
    ratios: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A run on one machine; the first model is the reference."""

    machine: str
    threads: int
    workload: Workload
    models: tuple[Timing, ...]
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a fresh process tells: seconds to load the model (libraries included) and its peak of memory in bytes."""

    seconds: float
    peak: int


def bench(
    refs: Sequence[str], *, device: str = "cpu", workload: Workload | None = None, reporter: Reporter = SILENT
) -> Bench:
    """Time the models behind `refs` by turns.

    Args:
        refs: exported folders, or anything :func:`minigpt.models.find.find_model` knows; the first is the reference.
        device: where PyTorch models run.
        workload: what is timed.
        reporter: told about progress.

    Raises:
        MiniGPTError: a model cannot be found or loaded.
    """
    from minigpt.environment import threads
    from minigpt.machine import device_name
    from minigpt.models.find import open_model

    work = workload or Workload()
    fresh = [
        _fresh(ref, device, work) for ref in reporter.track(refs, title="Loading in fresh processes", total=len(refs))
    ]
    models = [open_model(ref, device=device, reporter=reporter) for ref in refs]
    speeds: list[list[tuple[float, float]]] = [[] for _ in refs]
    for _ in reporter.track(range(work.repeats), title="Timing by turns", total=work.repeats):
        for model, found in zip(models, speeds, strict=True):
            found.append(pace(model, work))
    timings: list[Timing] = []
    for ref, model, start, found in zip(refs, models, fresh, speeds, strict=True):
        timings.append(_timing(ref, model, start, found, timings[0] if timings else None))
    return Bench(machine=device_name(device), threads=threads(), workload=work, models=tuple(timings))


def _timing(
    ref: str, model: Runtime, start: Loaded, speeds: Sequence[tuple[float, float]], first: Timing | None
) -> Timing:
    """Medians of one model, and their ratios to the first's."""
    timing = Timing(
        name=ref,
        runtime=model.name,
        parameters=model.parameters,
        bytes=model.bytes,
        load_seconds=start.seconds,
        peak_memory=start.peak,
        prefill=median(prefill for prefill, _ in speeds),
        decode=median(decode for _, decode in speeds),
        samples=tuple(decode for _, decode in speeds),
        ratios={},
    )
    if first is None:
        return timing
    return replace(timing, ratios={name: getattr(timing, name) / getattr(first, name) for name in COMPARED})


def pace(model: Runtime, work: Workload) -> tuple[float, float]:
    """Tokens a second of one prefill and of the steps after it. The tokens are ordinary text, repeated."""
    tokens = model.tokenizer.encode(TEXT, add_special_tokens=False)
    prompt = (tokens * (work.prompt // len(tokens) + 1))[: work.prompt]
    started = time.perf_counter()
    model.begin(prompt)
    read = time.perf_counter()
    for step in range(work.decode):
        model.step(tokens[step % len(tokens)])
    done = time.perf_counter()
    return work.prompt / (read - started), work.decode / (done - read)


def probe(ref: str, device: str, prompt: int) -> Loaded:
    """Load a model and read one prompt in this process, which has done nothing else, and tell what it took."""
    from minigpt.models.find import open_model
    from minigpt.runtimes.llama_worker import peak_memory

    started = time.perf_counter()
    model = open_model(ref, device=device)
    loaded = time.perf_counter() - started
    pace(model, Workload(prompt=prompt, decode=1))
    elsewhere = getattr(model, "peak_memory", None)  # of a runtime that keeps the model in a process of its own
    return Loaded(seconds=loaded, peak=(elsewhere or peak_memory)())


def _fresh(ref: str, device: str, work: Workload) -> Loaded:
    """:func:`probe` in a process of its own.

    Raises:
        MiniGPTError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROBE, ref, device, str(work.prompt)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MiniGPTError(f"{ref} cannot be loaded in a process of its own: {reason}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Loaded(seconds=found["seconds"], peak=found["peak"])
