"""Enough of a training run on disk to go on where it was killed: tensors as safetensors, the rest as their metadata."""

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

from minigpt.errors import MiniGPTError
from minigpt.files import atomic_path, read_json, write_json
from minigpt.healing.average import Average

SAMPLES = 64
_MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands: `step` steps are done, `tokens` seen, `losses` are (step, dev bits per byte).

    `best_excess`: bits per byte by which the best weights miss the bound.
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
    """The tensors of a run; `best` are the weights of the best dev step."""

    parameters: Sequence[nn.Parameter]
    optimizer: torch.optim.Optimizer
    average: Average
    best: Sequence[Tensor]


def weights_digest(model: Any) -> str:
    """SHA-256 over names, shapes and an even sample of every weight: tells models apart without reading them whole."""
    hasher = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, flat.numel() // SAMPLES)].float().cpu()
        hasher.update(f"{name}{tuple(parameter.shape)}".encode() + sample.numpy().tobytes())
    return hasher.hexdigest()


def save(path: Path, progress: Progress, state: State) -> None:
    """Write a checkpoint atomically.

    Raises:
        MiniGPTError: the disk is full or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for place, parameter in enumerate(state.parameters):
        moments = state.optimizer.state.get(parameter, {})
        named = {"value": parameter, "best": state.best[place]}
        named |= {name: moments[name] for name in _MOMENTS if name in moments}
        if state.average.values:
            named["average"] = state.average.values[place]
        tensors |= {f"{place}.{name}": item.detach().cpu().contiguous() for name, item in named.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"progress": json.dumps(asdict(progress))})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def load(path: Path, fingerprint: str, state: State) -> Progress | None:
    """Put a checkpoint back in place; None if there is none, it is damaged or it belongs to another run."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            progress = _progress(stored.metadata())
            if progress.fingerprint != fingerprint:
                return None
            _restore(stored, state)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    state.average.updates = progress.averaged
    return progress


def _restore(stored: Any, state: State) -> None:
    """Put the tensors in place, once it is sure that none is missing: the weights must not be half a checkpoint's."""
    names = set(stored.keys())
    kinds = ("value", "best", *(["average"] if state.average.values else []))
    if missing := {f"{place}.{kind}" for place in range(len(state.parameters)) for kind in kinds} - names:
        raise KeyError(min(missing))
    for place, parameter in enumerate(state.parameters):
        parameter.data.copy_(stored.get_tensor(f"{place}.value"))
        state.best[place].copy_(stored.get_tensor(f"{place}.best"))
        if state.average.values:
            state.average.values[place].copy_(stored.get_tensor(f"{place}.average"))
        for name in _MOMENTS:
            if f"{place}.{name}" in names:
                device = parameter.device if name != "step" or parameter.is_cuda else torch.device("cpu")
                state.optimizer.state[parameter][name] = stored.get_tensor(f"{place}.{name}").to(device)


def _progress(metadata: Mapping[str, Any]) -> Progress:
    fields = json.loads(metadata["progress"])
    fields["losses"] = tuple((int(step), float(loss)) for step, loss in fields["losses"])
    return Progress(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedOff:
    """How often a run, named by its `fingerprint`, gave up a learning rate, and the seconds that took."""

    fingerprint: str
    times: int = 0
    seconds: float = 0.0


def backed_off(checkpoint: Path | None, fingerprint: str) -> BackedOff:
    """What a killed process had given up of the same run; nothing where there is no checkpoint."""
    try:
        found = read_json(_marker(checkpoint), BackedOff) if checkpoint is not None else None
    except MiniGPTError:
        found = None
    return found if found is not None and found.fingerprint == fingerprint else BackedOff(fingerprint=fingerprint)


def back_off(checkpoint: Path | None, back: BackedOff) -> None:
    """Remember that a learning rate was given up, so that a run that resumes does not try it again."""
    if checkpoint is not None:
        with suppress(MiniGPTError):  # a full disk costs a run that resumes the tries, not this one its end
            write_json(_marker(checkpoint), back)


def remove(checkpoint: Path | None) -> None:
    """Drop a checkpoint and what stands beside it."""
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
        _marker(checkpoint).unlink(missing_ok=True)


def _marker(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".rate.json")
