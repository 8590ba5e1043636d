"""Forecast of a build's memory on this machine: the form of every stage and its peak, from a config alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from minigpt.errors import MiniGPTError
from minigpt.machine import free_memory, pick_device
from minigpt.methods import method_named
from minigpt.pipeline.opened import work_of
from minigpt.pipeline.settings import PRESETS, Settings
from minigpt.planning import memory
from minigpt.planning.memory import Peak
from minigpt.planning.memory_forms import choose_form, describe
from minigpt.planning.memory_healing import choose_healing
from minigpt.transformer.arch import shape_of

# Share of the FFN width that a model of the default size keeps, about.
KEPT_WIDTH = 2 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The memory of a build.

    Attributes:
        device: torch device that would compute.
        total: bytes that it has.
        peaks: the highest peak of statistics and pruning, and that of healing, as far as they fit.
        lines: one line about each, or why it does not fit.
    """

    device: str
    total: int
    peaks: tuple[Peak, ...]
    lines: tuple[str, ...]


def forecast(
    config: Any,
    *,
    layers: int | None = None,
    method: str = "contextual",
    settings: Settings = PRESETS["standard"],
    device: str = "auto",
    room: tuple[int, int] | None = None,
) -> Forecast:
    """Predict how a build holds a parent, and the peaks of its stages.

    Args:
        config: config of the parent.
        layers: layers that are kept (None: all, of about two thirds of the width).
        method: name of the pruning method.
        settings: settings of the build.
        device: torch device, or "auto".
        room: free and all bytes of the device (None: as the machine says).
    """
    device, row = pick_device(device), method_named(method)
    free, total = room or free_memory(device)
    host = None if room else free_memory("cpu")[0]
    shape = shape_of(config)
    narrow = replace(shape, intermediate_size=max(1, round(shape.intermediate_size * KEPT_WIDTH)))
    student = memory.parts_of(config, narrow if layers is None else replace(shape, layers=layers))
    parts, work = memory.parts_of(config), work_of(settings, device, row, config)
    peaks, lines = list[Peak](), list[str]()
    try:
        form, peak = choose_form(
            parts, work, settings.memory, free=free, total=total, streams=row.streams, method=method, host=host
        )
        peaks.append(peak)
        lines.append(describe(parts, form, peak, total=total))
    except MiniGPTError as error:
        lines.append(str(error))
    try:
        teacher = parts if settings.heal.distill else None
        healing = choose_healing(
            student,
            teacher,
            settings.heal,
            total=total,
            accelerated=device != "cpu",
            settings=settings.memory,
        )
        peaks.append(healing.peak)
        lines.append(healing.describe(student, total=total))
    except MiniGPTError as error:
        lines.append(str(error))
    return Forecast(device=device, total=total, peaks=tuple(peaks), lines=tuple(lines))
