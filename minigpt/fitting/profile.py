"""Profile of a device: what models of several shapes were measured to do there, in one JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from statistics import median

from minigpt.errors import ConfigError
from minigpt.files import read_json, write_json
from minigpt.fitting.engines import Layout
from minigpt.fitting.filesize import FileSizes
from minigpt.models.bench import Workload
from minigpt.results import Interval
from minigpt.types import Shape

SCHEMA_VERSION = 1
# Bytes of a number in the cache, which the runtimes hold in 16 or 32 bits; a constant factor does not matter here.
CACHED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of a token and the memory of a process, by cause, as far as a shape decides them.

    Attributes:
        layers: number of layers.
        matrices: bytes of the matrices of the layers.
        head: bytes of the matrix of the logits.
        cache: bytes of a token's keys and values, times the query heads that read each of them.
        file: bytes of the file.
        rows: tokens of the vocabulary.
    """

    layers: int
    matrices: float
    head: float
    cache: float
    file: float
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measured model.

    Attributes:
        runtime: name of a row of :data:`minigpt.fitting.engines.ENGINES`.
        precision: precision of its weights.
        shape: its shape.
        work: its work and memory by cause.
        decode: tokens a second while decoding: the parent's in the same session times the paired ratio to it.
        memory: peak of resident memory of the process that holds it, in bytes; None where it was not measured.
        parent_decode: tokens a second of the uncut parent in the runtime's first precision, by turns in the same
            session; None where it did not take part.
        ratio: paired ratio to that parent; None where it did not take part.
    """

    runtime: str
    precision: str
    shape: Shape
    work: Work
    decode: float
    memory: float | None = None
    parent_decode: float | None = None
    ratio: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Measurements of one device.

    Attributes:
        machine: name of the hardware.
        threads: threads that the runtimes had.
        parent: reference of the model that the shapes were cut from.
        workload: the work that was timed.
        samples: the models that were measured.
        schema_version: version of this record.
    """

    machine: str
    threads: int
    parent: str
    workload: Workload
    samples: tuple[Sample, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def with_samples(self, *samples: Sample) -> Profile:
        """Add measured models."""
        return replace(self, samples=(*self.samples, *samples))

    def of(self, runtime: str, precision: str) -> tuple[Sample, ...]:
        """Return the samples of a runtime in a precision."""
        return tuple(item for item in self.samples if (item.runtime, item.precision) == (runtime, precision))


def work_of(sizes: FileSizes, shape: Shape, layout: Layout) -> Work:
    """Split the work of a model by cause."""
    parts = sizes.parts(shape, layout)
    return Work(
        layers=shape.layers,
        matrices=parts.matrices,
        head=parts.head,
        cache=float(CACHED * shape.layers * shape.kv_groups * sizes.cached),
        file=parts.matrices + parts.head + parts.other,
        rows=shape.vocab_size,
    )


def covers(large: Shape, small: Shape) -> bool:
    """Tell whether a shape is nowhere smaller than another one: then it is neither faster nor takes less memory."""
    return all(one >= other for one, other in zip(astuple(large), astuple(small), strict=True))


def at_speed(samples: Sequence[Sample], parent: float) -> tuple[Sample, ...]:
    """Restate samples of several sessions as if the parent had had one speed in all of them.

    What a session measures well is the ratio to the parent; the machine's own speed differs from session to session.

    Args:
        samples: measured models.
        parent: tokens a second of the parent.
    """
    return tuple(
        sample
        if sample.parent_decode is None
        else replace(sample, decode=sample.decode / sample.parent_decode * parent, parent_decode=parent)
        for sample in samples
    )


def usual_speed(samples: Sequence[Sample]) -> float | None:
    """Return the parent's tokens a second, the median over sessions; None if it took part in none."""
    speeds = [sample.parent_decode for sample in samples if sample.parent_decode is not None]
    return median(speeds) if speeds else None


def read_profile(path: Path) -> Profile:
    """Read a profile that `minigpt bench --profile` wrote.

    Raises:
        ConfigError: the file is of a newer version of minigpt, or holds no measured model.
        MiniGPTError: the file is missing or no profile.
    """
    profile = read_json(path, Profile)
    if profile.schema_version > SCHEMA_VERSION:
        raise ConfigError(f"{path} was written by a newer minigpt; update this one.")
    if not profile.samples:
        raise ConfigError(f"{path} holds no measured model; write it again with minigpt bench --profile {path}.")
    return profile


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, profile)


def same_machine(profile: Profile, machine: str, threads: int) -> bool:
    """Tell whether a profile was measured on this hardware with as many threads."""
    return (profile.machine, profile.threads) == (machine, threads)
