"""Iterative magnitude pruning with rewinding: rounds of training and pruning that resume after a kill.

A round trains the weights that are left, and prunes a share of those with the lowest scores. The next round starts from
the survivors' values at an early point (weight rewinding, Frankle et al. 2020, arXiv 1912.05671), or goes on from their
trained values with the learning rate of the start (learning-rate rewinding, Renda et al. 2020, arXiv 2003.02389).
The loop knows no model: training and scoring are functions, so that it serves a perceptron and a language model alike.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from minigpt import integrity
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.files import atomic_path, fingerprint, read_json, sweep, write_json
from minigpt.parsing import load_json
from minigpt.progress import SILENT, Reporter
from minigpt.progress.stages import skip
from minigpt.tickets.masks import Masks, Pattern, densities, density, full, keep_best, magnitudes, smallest
from minigpt.tickets.overlap import mask_distance
from minigpt.tickets.sparse import packed, unpacked

Rewinding = Literal["weights", "rate"]
Weights = Mapping[str, Tensor]
RECORD, MASKS, WEIGHTS = "record.json", "masks.safetensors", "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Result of one training: all weights by name, and the numbers that the record of the round gets."""

    weights: Weights
    facts: Mapping[str, float] = field(default_factory=dict)


# Trains from weights under masks: (weights, masks, number of the round, file for a checkpoint).
Train = Callable[[Weights, Masks, int, Path], Trained]
# Prunes after a training: (trained weights, masks, share that is left) to weights and smaller masks. The weights that
# are left may have been moved, to make up for those that go.
Prune = Callable[[Weights, Masks, float], tuple[Weights, Masks]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Settings of the rounds.

    Attributes:
        levels: share of the weights that is left after each pruning, falling; a training comes before the first and
            after every one.
        pattern: where kept weights may lie: `global`, `lamp`, `layer` or `N:M`.
        rewinding: `weights` rewinds the survivors to the start, `rate` only the learning rate.

    Raises:
        ConfigError: a value is outside its range.
    """

    levels: tuple[float, ...]
    pattern: str = "global"
    rewinding: Rewinding = "weights"

    def __post_init__(self) -> None:
        Pattern(self.pattern)
        steps = (1.0, *self.levels)
        if any(later >= earlier or later < 0 for earlier, later in pairwise(steps)):
            raise ConfigError(f"The levels of the rounds must fall from below 1 to 0 or more, not {self.levels}.")


def even_levels(remaining: float, rounds: int) -> tuple[float, ...]:
    """Return the levels that remove the same share of what is left in each round, until `remaining` is left."""
    return tuple(float(remaining ** (number / rounds)) for number in range(1, rounds + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """Record of a finished round.

    Attributes:
        number: number of the round, from 0; round 0 trains all weights.
        key: fingerprint of everything that the round depends on.
        remaining: share of the weights that were trained.
        smallest: smallest share that a matrix keeps.
        distance: share of weights on which the mask differs from that of the round before; 0 for the first.
        seconds: time that the round took.
        facts: numbers that the training measured, such as the dev loss.
        layers: share that each matrix keeps.
    """

    number: int
    key: str
    remaining: float
    smallest: float
    distance: float
    seconds: float
    facts: Mapping[str, float] = field(default_factory=dict)
    layers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """Result of the rounds.

    Attributes:
        masks: weights that are left.
        weights: all weights after the last training, zero where they were removed.
        records: record of each round.
    """

    masks: Masks
    weights: Weights
    records: tuple[RoundRecord, ...]


def run_rounds(
    folder: Path,
    start: Weights,
    names: tuple[str, ...],
    train: Train,
    schedule: Schedule,
    *,
    key: str,
    prune: Prune | None = None,
    masks: Masks | None = None,
    keeps_all: bool = False,
    steps: Sequence[float] | None = None,
    reporter: Reporter = SILENT,
) -> Ticket:
    """Run the rounds that are not finished yet, and return the ticket of the last one.

    Every round is a folder that is complete or not there, with its mask and record, and until the next round is
    finished also its weights. A run that was killed goes on with the first round that is missing.

    Args:
        folder: folder of the rounds.
        start: all weights at the point that survivors are rewound to.
        names: matrices that are pruned.
        train: trains weights under masks.
        schedule: levels, pattern and rewinding.
        key: fingerprint of the start, the training and its data.
        prune: prunes after a training (None: the weights of lowest magnitude, by the pattern).
        masks: weights that are left before the first round (None: all).
        keeps_all: keep the weights of every round, not only of the last one.
        steps: steps of each training, for the time that is left after a resume (None: all are as long).
        reporter: told about progress.
    """
    keys = [
        fingerprint(key, schedule.levels[:number], schedule.pattern, schedule.rewinding)
        for number in range(len(schedule.levels) + 1)
    ]
    records = _finished(folder, keys, reporter)
    if records and load_masks(_home(folder, 0) / MASKS).keys() != {*names}:
        records = []  # an older version pruned other matrices of this family
    for number in range(len(records), len(keys)):  # else a round of another start could be taken for the next one
        sweep(_home(folder, number))
        shutil.rmtree(_home(folder, number), ignore_errors=True)
    masks, trained = masks or full({name: start[name] for name in names}), start
    if records:
        masks, trained = (load(_home(folder, len(records) - 1) / name) for load, name in _FILES)
    steps = steps or [1.0] * len(keys)
    skip(reporter, sum(steps[: len(records)]) / (sum(steps) or 1))
    for number in range(len(records), len(keys)):
        began, before = time.perf_counter(), masks
        if number:
            trained, masks = (prune or _weakest(schedule.pattern))(trained, masks, schedule.levels[number - 1])
        origin = trained if schedule.rewinding == "rate" else start
        with reporter.stage(f"Round {number}: {density(masks):.1%} of the weights"):
            result = train(masked(origin, masks), masks, number, folder / f"training-{number:02d}.safetensors")
        trained = result.weights
        record = RoundRecord(
            number=number,
            key=keys[number],
            remaining=density(masks),
            smallest=smallest(masks),
            distance=mask_distance(masks, before),
            seconds=time.perf_counter() - began,
            facts=dict(result.facts),
            layers=densities(masks),
        )
        _write(_home(folder, number), record, masks, trained)
        if number and not keeps_all:
            (_home(folder, number - 1) / WEIGHTS).unlink(missing_ok=True)
        records.append(record)
    return Ticket(masks=masks, weights=trained, records=tuple(records))


def _weakest(pattern: str) -> Prune:
    """Return the pruning of the weights of lowest magnitude by a pattern."""

    def prune(weights: Weights, masks: Masks, level: float) -> tuple[Weights, Masks]:
        scores = magnitudes({name: weights[name] for name in masks})
        return weights, keep_best(scores, level, Pattern(pattern), masks)

    return prune


def _home(folder: Path, number: int) -> Path:
    """Return the folder of a round."""
    return folder / f"round-{number:02d}"


def _finished(folder: Path, keys: Sequence[str], reporter: Reporter) -> list[RoundRecord]:
    """Return the records of the finished rounds, from the first to the last one whose weights are there.

    A round that is damaged is moved aside, and it and those after it run again.
    """
    records: list[RoundRecord] = []
    for number, key in enumerate(keys):
        home = _home(folder, number)
        sums = _sums(home, reporter)
        if sums is None or sums.key != key:
            break
        records.append(read_json(home / RECORD, RoundRecord))
    while records and not (_home(folder, len(records) - 1) / WEIGHTS).is_file():
        records.pop()
    return records


def _sums(home: Path, reporter: Reporter) -> integrity.Sums | None:
    """Return the sums of a finished round that is whole but for its weights; None if there is none."""
    if not home.is_dir():
        return None
    try:
        sums = integrity.read_sums(home / integrity.SUMS)
        names = [name for name in sums.files if name != WEIGHTS or (home / WEIGHTS).exists()] if sums else []
        reason = next(iter(integrity.defects(home, sums, names=names)), None) if sums else "it has no sums"
    except MiniGPTError as error:
        sums, reason = None, str(error).rstrip(".")
    if reason is None:
        return sums
    reporter.note(integrity.aside_note(home, reason, integrity.set_aside(home)))
    return None


def _write(home: Path, record: RoundRecord, masks: Masks, weights: Weights) -> None:
    """Write a finished round, whole or not at all."""
    with atomic_path(home) as temporary:
        temporary.mkdir()
        save_tensors(weights, temporary / WEIGHTS)
        save_masks(masks, temporary / MASKS)
        write_json(temporary / RECORD, record)
        integrity.seal(temporary, key=record.key)


def masked(weights: Weights, masks: Masks) -> dict[str, Tensor]:
    """Return the weights with zeros outside of the masks."""
    return {name: value * masks[name].to(value.device) if name in masks else value for name, value in weights.items()}


def save_tensors(tensors: Weights, path: Path) -> None:
    """Write tensors atomically as one safetensors file."""
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, temporary)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file."""
    from safetensors.torch import load_file

    return load_file(path)


def save_masks(masks: Masks, path: Path) -> None:
    """Write masks atomically, one bit for each weight."""
    from safetensors.torch import save_file

    shapes = json.dumps({name: list(mask.shape) for name, mask in masks.items()})
    with atomic_path(path) as temporary:
        save_file({name: packed(mask) for name, mask in masks.items()}, temporary, metadata={"shapes": shapes})


def load_masks(path: Path) -> dict[str, Tensor]:
    """Read masks that :func:`save_masks` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        shapes: Mapping[str, Any] = load_json(stored.metadata()["shapes"])
        return {name: unpacked(stored.get_tensor(name), shape) for name, shape in shapes.items()}


# Readers of the files of a round: its masks and its trained weights.
_FILES: tuple[tuple[Callable[[Path], dict[str, Tensor]], str], ...] = ((load_masks, MASKS), (load_tensors, WEIGHTS))


def rows_of(records: Sequence[RoundRecord]) -> list[dict[str, Any]]:
    """Return the records of rounds as plain rows, without the densities of single matrices."""
    left_out = ("layers", "key")
    return [{name: value for name, value in asdict(record).items() if name not in left_out} for record in records]
