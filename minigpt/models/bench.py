"""Speed, memory and size of models in their runtimes, measured side by side.

Other work may share the machine, so the models take turns: every repeat measures each model once, and the median is
kept. Memory is measured in a fresh process for each model, because a process does not give memory back.
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

from minigpt.errors import ConfigError, MiniGPTError
from minigpt.progress import SILENT, Reporter
from minigpt.progress.stages import Stage, counted, passing
from minigpt.transformer.arch import learned_positions

if TYPE_CHECKING:
    from minigpt.runtimes import Runtime

SCHEMA_VERSION = 1
# Figures of a timing that are divided by the first model's.
COMPARED = ("bytes", "load_seconds", "peak_memory", "prefill", "decode")
STAGES = (
    Stage(name="fresh", title="Loading in fresh processes"),
    Stage(name="open", title="Loading side by side"),
    Stage(name="time", title="Timing by turns"),
)
# Text that is read, repeated to the length of the prompt.
PROMPT_TEXT = (
    "The heart is a muscular organ that pumps blood through the vessels of the body, and the law of supply says that a "
    "higher price brings more of a good to the market, other things being equal. "
)
# Program of the fresh process that loads one model.
LOAD_SCRIPT = """import sys
from minigpt import errors, files
from minigpt.models import bench
ref, device, prompt = sys.argv[1:]
try:
    cost = bench.measure_load(ref, device, int(prompt))
except errors.MiniGPTError as error:
    sys.exit(str(error))
sys.stdout.write(files.dumps(cost).replace(chr(10), " ") + chr(10))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Work that is timed: reading `prompt` tokens at once, then `decode` tokens one by one, `repeats` times."""

    prompt: int = 256
    decode: int = 64
    repeats: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Speed, memory and size of one model.

    Attributes:
        name: Reference of the model as the user gave it.
        runtime: Name of its runtime.
        parameters: Parameters, tied ones counted once.
        bytes: Bytes of its weights on disk.
        load_seconds: Seconds to load it in a fresh process, libraries included.
        peak_memory: Peak of resident memory of that process in bytes.
        prefill: Tokens a second while reading the prompt, the median over repeats.
        decode: Tokens a second while reading token by token, the median over repeats.
        samples: Decode speed of every repeat.
        ratios: Figures divided by those of the first model; empty for the first model.
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
    """Timings of several models on one machine; the first model is the reference."""

    machine: str
    threads: int
    workload: Workload
    models: tuple[Timing, ...]
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCost:
    """Seconds to load a model in a fresh process (libraries included), and its peak of memory in bytes."""

    seconds: float
    peak: int


def bench(
    refs: Sequence[str], *, device: str = "cpu", workload: Workload | None = None, reporter: Reporter = SILENT
) -> Bench:
    """Time the models behind `refs` by turns.

    Args:
        refs: Export folders, or anything that :func:`minigpt.models.find.find_model` knows; the first is the reference.
        device: Torch device for PyTorch models.
        workload: Work to time.
        reporter: Receives the progress.

    Raises:
        MiniGPTError: A model cannot be found or loaded.
    """
    from minigpt.environment import threads
    from minigpt.machine import device_name
    from minigpt.models.find import open_model

    work, reporter = workload or Workload(), counted(reporter, STAGES)
    with passing(reporter, "fresh", "Loading in fresh processes"):
        load_costs = [
            load_in_fresh_process(ref, device, work)
            for ref in reporter.track(refs, title="Models loaded", total=len(refs))
        ]
    with passing(reporter, "open", "Loading side by side"):
        models = [open_model(ref, device=device, reporter=reporter) for ref in refs]
    speeds: list[list[tuple[float, float]]] = [[] for _ in refs]
    turns = [place for _ in range(work.repeats) for place in range(len(refs))]
    with passing(reporter, "time", f"Timing by turns ({work.repeats} of each model)"):
        for place in reporter.track(turns, title="Timing", total=len(turns)):
            speeds[place].append(measure_speed(models[place], work))
    timings: list[Timing] = []
    for ref, model, load_cost, model_speeds in zip(refs, models, load_costs, speeds, strict=True):
        timings.append(_timing(ref, model, load_cost, model_speeds, timings[0] if timings else None))
    return Bench(machine=device_name(device), threads=threads(), workload=work, models=tuple(timings))


def _timing(
    ref: str, model: Runtime, load_cost: LoadCost, speeds: Sequence[tuple[float, float]], first: Timing | None
) -> Timing:
    """Take the medians of one model, and divide them by the first model's."""
    timing = Timing(
        name=ref,
        runtime=model.name,
        parameters=model.parameters,
        bytes=model.bytes,
        load_seconds=load_cost.seconds,
        peak_memory=load_cost.peak,
        prefill=median(prefill for prefill, _ in speeds),
        decode=median(decode for _, decode in speeds),
        samples=tuple(decode for _, decode in speeds),
        ratios={},
    )
    if first is None:
        return timing
    return replace(timing, ratios={name: getattr(timing, name) / getattr(first, name) for name in COMPARED})


def measure_speed(model: Runtime, work: Workload) -> tuple[float, float]:
    """Measure the tokens a second of one prefill, and of the steps after it. The tokens are ordinary text, repeated."""
    tokens = model.tokenizer.encode(PROMPT_TEXT, add_special_tokens=False)
    prompt = (tokens * (work.prompt // len(tokens) + 1))[: work.prompt]
    started = time.perf_counter()
    longest = learned_positions(model.config)
    if longest is not None and work.prompt + work.decode > longest:
        raise ConfigError(
            f"The model has positions for {longest} tokens, and {work.prompt} are read and {work.decode} decoded; "
            "give a smaller --prompt or --decode."
        )
    model.begin(prompt)
    read = time.perf_counter()
    for step in range(work.decode):
        model.step(tokens[step % len(tokens)])
    done = time.perf_counter()
    return work.prompt / (read - started), work.decode / (done - read)


def measure_load(ref: str, device: str, prompt: int) -> LoadCost:
    """Load a model and read one prompt in this process, which must have done nothing else before.

    Args:
        ref: Reference of the model.
        device: Torch device for PyTorch models.
        prompt: Tokens to read.
    """
    from minigpt.models.find import open_model
    from minigpt.runtimes.llama_worker import peak_memory

    started = time.perf_counter()
    model = open_model(ref, device=device)
    loaded = time.perf_counter() - started
    measure_speed(model, Workload(prompt=prompt, decode=1))
    # A runtime that keeps the model in another process knows that process's memory.
    elsewhere = getattr(model, "peak_memory", None)
    return LoadCost(seconds=loaded, peak=(elsewhere or peak_memory)())


def load_in_fresh_process(ref: str, device: str, work: Workload) -> LoadCost:
    """Run :func:`measure_load` in a new process.

    Args:
        ref: Reference of the model.
        device: Torch device for PyTorch models.
        work: Its prompt is read.

    Raises:
        MiniGPTError: The process failed.
    """
    process = subprocess.run(
        [sys.executable, "-c", LOAD_SCRIPT, ref, device, str(work.prompt)], capture_output=True, text=True, check=False
    )
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise MiniGPTError(f"{ref} cannot be loaded in a process of its own: {reason}")
    cost = json.loads(process.stdout.splitlines()[-1])
    return LoadCost(seconds=cost["seconds"], peak=cost["peak"])
