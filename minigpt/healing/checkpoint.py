"""Checkpoints of a training run, from which a killed run resumes.

A checkpoint is one safetensors file; what is not a tensor stands in its metadata. A small JSON file beside it holds the
learning rates that the run has given up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.distributed.group import Group
from minigpt.errors import MiniGPTError, first_line
from minigpt.files import atomic_path
from minigpt.healing.average import Average
from minigpt.healing.exchange import Exchange
from minigpt.integrity import aside_note, read_kept, set_aside, write_kept
from minigpt.parsing import load_json
from minigpt.progress import SILENT, Reporter

# Values of each weight, about, that enter the digest of a model.
SAMPLES_PER_WEIGHT = 64
# Names of the optimizer state that is saved, of AdamW and of Muon.
_MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a run at the time of a checkpoint.

    Attributes:
        fingerprint: names the run; a checkpoint of another run is ignored.
        step: optimizer steps that are done.
        tokens: tokens that were predicted so far.
        best_step: step with the best weights so far.
        best_loss: bits per byte of the best weights on the dev text.
        averaged: updates of the moving average so far.
        seconds: wall time of the run so far.
        losses: (step, bits per byte on the dev text) of every evaluation so far.
        best_excess: bits per byte by which the best weights exceed the bound on other text; 0 within it.
    """

    fingerprint: str
    step: int
    tokens: int
    best_step: int
    best_loss: float
    averaged: int
    seconds: float
    losses: tuple[tuple[int, float], ...]
    best_excess: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Tensors of a run, which a checkpoint saves and restores in place.

    A process among several has those of the parameters that it owns.

    Attributes:
        parameters: the trained parameters.
        optimizer: holds the moments of the parameters.
        average: moving average of the parameters.
        best: values of the parameters at the best step so far, in the same order.
        exchange: knows which part of all parameters these are (None: all of them).
    """

    parameters: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    average: Average
    best: Sequence[Tensor]
    exchange: Exchange | None = None

    @property
    def numbers(self) -> Sequence[int]:
        """Numbers of the parameters."""
        return range(len(self.parameters)) if self.exchange is None else self.exchange.indices

    @property
    def shapes(self) -> list[torch.Size]:
        """Shapes of all of the run's parameters, those of other processes included."""
        every = self.parameters if self.exchange is None else self.exchange.parameters
        return [parameter.shape for parameter in every]

    def whole(self, index: int, tensor: Tensor) -> Tensor:
        """Return the whole tensor of which the process may have a part."""
        return tensor if self.exchange is None else self.exchange.whole(index, tensor)

    def part(self, index: int, tensor: Tensor) -> Tensor:
        """Return what the process has of a whole tensor."""
        return tensor if self.exchange is None else self.exchange.rows(index, tensor)


def weights_digest(model: Any) -> str:
    """Return a SHA-256 that tells models apart: over names, shapes and evenly spaced values of every weight.

    A sample of the values is enough to tell models apart, and large models are not read as a whole.
    """
    hasher = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, flat.numel() // SAMPLES_PER_WEIGHT)].float().cpu()
        hasher.update(f"{name}{tuple(parameter.shape)}".encode() + sample.numpy().tobytes())
    return hasher.hexdigest()


def save(path: Path, progress: Progress, state: State, *, group: Group | None = None) -> None:
    """Write a checkpoint atomically: a process that is killed meanwhile leaves the previous one.

    With a group the first process collects the tensors of all and writes them; the file does not depend on how many
    there are.

    Raises:
        MiniGPTError: the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save_file

    tensors = _tensors_of(state)
    if group is not None:
        tensors = _collected(group, tensors)
        if not group.leads:
            return
    words = json.dumps(asdict(progress))
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"progress": words, "digest": _digest(words, tensors)})


def _tensors_of(state: State) -> dict[str, Tensor]:
    """Return the tensors of a state on the CPU, by parameter's number and kind."""
    tensors: dict[str, Tensor] = {}
    for place, (index, parameter) in enumerate(zip(state.numbers, state.parameters, strict=True)):
        moments = state.optimizer.state.get(parameter, {})
        named = {"value": parameter, "best": state.best[place]}
        named |= {name: moments[name] for name in _MOMENTS if name in moments}
        if state.average.values:
            named["average"] = state.average.values[place]
        tensors |= {
            f"{index}.{name}": state.whole(index, item.detach()).cpu().contiguous() for name, item in named.items()
        }
    return tensors


def _collected(group: Group, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of all processes in the first one."""
    if not group.leads:
        group.send(tensors, 0)
        return tensors
    return {**tensors, **{name: item for rank in range(1, group.world) for name, item in group.receive(rank).items()}}


def load(
    path: Path, fingerprint: str, state: State, reporter: Reporter = SILENT, *, group: Group | None = None
) -> Progress | None:
    """Restore a checkpoint into `state` and return its progress.

    With a group the first process reads the file and gives the others what they own.

    Args:
        path: file of the checkpoint.
        fingerprint: names the run that wants to resume.
        state: tensors that are overwritten in place.
        reporter: told about a damaged checkpoint, which is moved aside.
        group: processes that run together.

    Returns:
        None, with `state` unchanged, if there is no checkpoint, it is damaged or it belongs to another run.
    """
    stored = _read(path, fingerprint, state, reporter) if group is None or group.leads else None
    if group is not None:
        stored = _distributed(group, stored, state)
    if stored is None:
        return None
    _restore(stored[1], state)
    state.average.updates = stored[0].averaged
    return stored[0]


def _distributed(
    group: Group, stored: tuple[Progress, dict[str, Tensor]] | None, state: State
) -> tuple[Progress, dict[str, Tensor]] | None:
    """Return the first process's checkpoint in every process, with the tensors that the process owns."""
    words = group.share(None if stored is None else asdict(stored[0]))
    owned = group.gather(list(state.numbers))
    if words is None:
        return None
    if stored is None:
        return _progress_of(words), group.receive(0)
    for rank in range(1, group.world):
        owns = set(map(str, owned[rank]))
        group.send({name: item for name, item in stored[1].items() if name.partition(".")[0] in owns}, rank)
    return stored


def _read(path: Path, fingerprint: str, state: State, reporter: Reporter) -> tuple[Progress, dict[str, Tensor]] | None:
    """Read and check a checkpoint; None if there is none for this run. A damaged one is moved aside."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            progress = _progress_of(load_json(stored.metadata()["progress"]))
            if progress.fingerprint != fingerprint:
                return None
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
            if _digest(stored.metadata()["progress"], tensors) != stored.metadata()["digest"]:
                raise ValueError("its content is not what was written")
            _check(tensors, state)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        with suppress(MiniGPTError):  # a folder in which nothing can be moved: the next checkpoint replaces it
            reporter.note(aside_note(path, first_line(error), set_aside(path)))
        return None
    return progress, tensors


def _digest(progress: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a checkpoint's content, so that a single flipped bit in the file is noticed."""
    hasher = hashlib.sha256(progress.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _check(stored: Mapping[str, Tensor], state: State) -> None:
    """Check that no tensor is missing, so that a damaged checkpoint never leaves a model of half restored weights.

    Raises:
        KeyError: one is missing.
        ValueError: one has another shape.
    """
    kinds = ("value", "best", *(["average"] if state.average.values else []))
    if missing := {f"{index}.{kind}" for index in range(len(state.shapes)) for kind in kinds} - stored.keys():
        raise KeyError(min(missing))
    for index, shape in enumerate(state.shapes):
        if any(stored[f"{index}.{kind}"].shape != shape for kind in kinds):
            raise ValueError(f"parameter {index} has another shape")


def _restore(stored: Mapping[str, Tensor], state: State) -> None:
    """Copy the stored tensors into `state`."""
    for place, (index, parameter) in enumerate(zip(state.numbers, state.parameters, strict=True)):
        parameter.data.copy_(state.part(index, stored[f"{index}.value"]))
        state.best[place].copy_(state.part(index, stored[f"{index}.best"]))
        if state.average.values:
            state.average.values[place].copy_(state.part(index, stored[f"{index}.average"]))
        for name in _MOMENTS:
            if f"{index}.{name}" in stored:
                # AdamW keeps its step counter on the CPU, except for fused steps on a GPU.
                device = parameter.device if name != "step" or parameter.is_cuda else torch.device("cpu")
                moment = state.part(index, stored[f"{index}.{name}"])
                state.optimizer.state[parameter][name] = moment.to(device, copy=True)


def _progress_of(fields: dict[str, Any]) -> Progress:
    """Read a progress from its fields as JSON gives them."""
    losses = tuple((int(step), float(loss)) for step, loss in fields["losses"])
    return Progress(**{**fields, "losses": losses})


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOff:
    """Learning rates that a run has given up because they did harm.

    Attributes:
        fingerprint: names the run.
        times: how many rates were given up.
        seconds: wall time that was spent on them.
    """

    fingerprint: str
    times: int = 0
    seconds: float = 0.0


def read_back_off(checkpoint: Path | None, fingerprint: str) -> BackOff:
    """Return the learning rates that a killed process of the same run had given up.

    Args:
        checkpoint: file of the run's checkpoint (None: the run keeps none).
        fingerprint: names the run.

    Returns:
        A record of zero rates if nothing was saved, it cannot be read, or it belongs to another run.
    """
    try:
        saved = read_kept(_back_off_path(checkpoint), BackOff) if checkpoint is not None else None
    except MiniGPTError:
        saved = None
    return saved if saved is not None and saved.fingerprint == fingerprint else BackOff(fingerprint=fingerprint)


def write_back_off(checkpoint: Path | None, back: BackOff) -> None:
    """Save that a learning rate was given up, so that a resumed run does not try it again."""
    if checkpoint is not None:
        with suppress(MiniGPTError):  # on a full disk a resumed run tries the rates again; this run must not fail
            write_kept(_back_off_path(checkpoint), back)


def remove(checkpoint: Path | None) -> None:
    """Delete a checkpoint and the file of given-up rates beside it, if they exist."""
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
        _back_off_path(checkpoint).unlink(missing_ok=True)


def _back_off_path(checkpoint: Path) -> Path:
    """Return the file of given-up learning rates that belongs to a checkpoint."""
    return checkpoint.with_suffix(".rate.json")
