"""The model that a build prunes, as it is held for statistics, plan and cut: whole in memory, or streamed."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigpt.conditional.folder import load_model
from minigpt.errors import ConfigError
from minigpt.machine import free_memory
from minigpt.methods import Method, method_named
from minigpt.methods.cut import repair_of
from minigpt.methods.norms import weight_norms
from minigpt.methods.scores import WeightNorms
from minigpt.pipeline.run import Run
from minigpt.pipeline.settings import Settings
from minigpt.planning import memory
from minigpt.planning.budget import allowed_axes
from minigpt.planning.memory import MOST_IN_FLOAT32, Parts, Work
from minigpt.planning.memory_forms import choose_form, describe
from minigpt.progress import Reporter
from minigpt.pruning.waiting import PROCESSOR, Home, OnDisk
from minigpt.streaming import statistics as streaming
from minigpt.streaming.parent import StreamedParent, refusal
from minigpt.transformer import stats, together
from minigpt.transformer.arch import arch_of, check_window
from minigpt.transformer.batches import Batch


@dataclass(slots=True)
class Opened:
    """A model to prune.

    Attributes:
        model: the model, or the outline of one whose layers are on disk.
        parent: the streamed parent; None if all of the model is in memory.
        norms: norms of its weights, once they were computed.
    """

    model: Any
    parent: StreamedParent | None = None
    norms: WeightNorms | None = field(default=None)

    def collect(self, batches: Sequence[Batch], reporter: Reporter) -> stats.ActivationStats:
        """Measure the activation statistics of a text."""
        if self.parent is None:
            return together.collect(self.model, batches, reporter=reporter)
        statistics, self.norms = streaming.collect(self.parent, batches, reporter=reporter)
        return statistics

    def weight_norms(self, reporter: Reporter) -> WeightNorms:
        """Return the norms of the weights, of the sweep that collected statistics if there was one."""
        if self.norms is None:
            parent = self.parent
            self.norms = weight_norms(self.model) if parent is None else streaming.norms_of(parent, reporter=reporter)
        return self.norms


def open_source(run: Run, path: Path) -> Opened:
    """Open the model that a build prunes: all of it where it fits, layer by layer where it does not.

    Args:
        run: the build.
        path: folder of the model.

    Raises:
        ConfigError: no form fits into memory or on the disk, or streaming is asked for and the method cannot do it.
        UnsupportedModel: streaming is asked for, and the files store the layers in another form.
    """
    import torch

    method, config = method_named(run.options.method), config_of(path)
    parts = memory.parts_of(config)
    settings = run.settings.memory
    work = work_of(run.settings, run.device, method, config, kinds=run.options.kinds)
    free, total = free_memory(run.device)
    # Whether the files can be streamed is only asked where it matters: the answer needs an outline of the model.
    resident = memory.highest_peak(memory.pruning_peaks(parts, work, "resident"))
    tight = resident.device > memory.MARGIN * free
    streams = method.streams and (not tight or settings.streaming != "auto" or refusal(path) is None)
    host, _ = free_memory("cpu")
    form, peak = choose_form(
        parts, work, settings, free=free, total=total, streams=streams, method=run.options.method, host=host
    )
    if tight or settings.streaming != "auto":
        run.reporter.note(describe(parts, form, peak, total=total))
    dtype = torch.bfloat16 if in_bf16(run.settings, run.device, parts) else torch.float32
    if form != "resident":
        home = _disk(run.workspace.work, peak.disk) if form == "spilled" else PROCESSOR
        parent = StreamedParent(path, dtype=dtype, device=run.device, home=home)
        check_window(parent.model, run.settings.heal.window)
        return Opened(parent.model, parent)
    model = load_model(path, dtype=dtype, device=run.device)
    check_window(model, run.settings.heal.window)
    return Opened(model)


def _disk(folder: Path, needed: int) -> Home:
    """Return the place on the disk where text waits.

    Raises:
        ConfigError: the disk has no room for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"Text that waits between two layers needs {memory.in_words(needed)} in {folder}, where "
            f"{memory.in_words(free)} are free. Free space, choose another --output-dir, or set fewer repair.tokens."
        )
    return OnDisk(folder)


def config_of(path: Path) -> Any:
    """Read the config of a model folder."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(path, local_files_only=True)


def in_bf16(settings: Settings, device: str, parts: Parts) -> bool:
    """Return whether statistics, repair and cut are computed in bf16: of large parents, on an accelerator."""
    wanted = settings.memory.precision
    large = parts.parameters > MOST_IN_FLOAT32 and device.startswith("cuda")
    return wanted == "bf16" or (wanted == "auto" and large)


def precision_key(run: Run, path: Path) -> tuple[str, ...]:
    """Return what the precision adds to fingerprints: nothing for fp32, which all builds had once."""
    return ("bf16",) if in_bf16(run.settings, run.device, memory.parts_of(config_of(path))) else ()


def work_of(
    settings: Settings, device: str, method: Method, config: Any, *, kinds: Collection[str] | None = None
) -> Work:
    """Gather what a build does to the model that it prunes, for the arithmetic of memory.

    Args:
        settings: of the build.
        device: torch device.
        method: row of the table.
        config: config of the model.
        kinds: kinds of pruning that are allowed (None: all).
    """
    repair, axes = repair_of(method, settings.repair), allowed_axes(method, kinds, arch_of(config))
    measured = settings.plan.sensitivity == "measure" or device != "cpu"
    return Work(
        tokens=settings.plan.tokens,
        batch_tokens=settings.evaluation.batch_tokens,
        window=settings.heal.window,
        number_bytes=2 if in_bf16(settings, device, memory.parts_of(config)) else 4,
        accelerated=device != "cpu",
        repair_tokens=repair.tokens if repair is not None else 0,
        probe_tokens=settings.plan.probe_tokens if measured and len(axes) > 1 else 0,
    )
