"""Rehearsals: models of planned shapes, cut from the parent without care, written for a runtime and timed there.

How fast a model is and how much memory it takes depend on its shape and not on its weights, so any units of the parent
do. Every model is timed by turns with the uncut parent (:mod:`minigpt.fitting.turns`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from minigpt import assets
from minigpt.assets import Parent
from minigpt.errors import AssetError
from minigpt.exporting import ExportRequest
from minigpt.exporting.run import write_unproved
from minigpt.fitting.engines import Engine
from minigpt.fitting.filesize import FileSizes
from minigpt.fitting.profile import Sample, work_of
from minigpt.fitting.turns import median_interval, paired_ratio, take_turns
from minigpt.methods.cut import trim_vocabulary
from minigpt.models.bench import Workload, load_in_fresh_process
from minigpt.models.find import open_model
from minigpt.planning.allocate import NEURON_STEP, VOCAB_STEP, Limits
from minigpt.progress import SILENT, Reporter
from minigpt.pruning import vocab
from minigpt.pruning.apply import apply_plan
from minigpt.results import Interval
from minigpt.runtimes.gguf import interpreter
from minigpt.transformer.arch import shape_of
from minigpt.types import PrunePlan, Shape

# The work that is timed, at most.
WORKLOAD = Workload(prompt=128, decode=32, repeats=40)
# Shapes that costs are fitted to, as shares of the parent's layers, neurons, KV groups and tokens. Each differs from
# the others in another way, so that the causes of a token's time can be told apart.
SHARES = (
    (1.0, 1.0, 1.0, 1.0),
    (0.5, 1.0, 1.0, 0.5),
    (1.0, 0.5, 1.0, 0.25),
    (1.0, 0.5, 0.34, 1.0),
    (0.5, 0.3, 0.34, 0.25),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Speed and memory of one model.

    Attributes:
        speed: tokens a second while decoding.
        ratio: its speed divided by that of the first model, by paired turns.
        memory: peak of resident memory of a process that holds it, in bytes; None where it was not measured.
    """

    speed: Interval
    ratio: Interval
    memory: int | None


@dataclass(slots=True, kw_only=True)
class Stage:
    """A folder of rehearsed models; each is written once.

    Attributes:
        parent: the parent.
        sizes: predicts bytes of files.
        engine: the runtime.
        folder: where models and exports are written.
        workload: the work that is timed.
        memory: whether memory is measured too, for which each model is loaded in a process of its own.
        reporter: told about progress.
        written: export folders by precision and shape.
        peaks: peaks of memory by folder; they do not depend on the time, so each is measured once.
    """

    parent: Parent
    sizes: FileSizes
    engine: Engine
    folder: Path
    workload: Workload = field(default_factory=lambda: WORKLOAD)
    memory: bool = False
    reporter: Reporter = SILENT
    written: dict[tuple[str, Shape], Path] = field(default_factory=dict)
    peaks: dict[Path, int] = field(default_factory=dict)

    def export(self, precision: str, shape: Shape) -> Path:
        """Cut the parent to a shape and write it for the runtime, or return the folder where that stands already."""
        key = (precision, shape)
        if key in self.written:
            return self.written[key]
        folder = self.folder / f"{len(self.written)}-{precision}"
        with self.reporter.stage(f"Rehearsing {shape.layers} layers of {shape.intermediate_size} in {precision}"):
            source = cut_anyhow(self.parent, shape, folder / "model")
            kind = self.engine.formats[precision]
            if kind:
                request = ExportRequest(source=source, format=kind, output_dir=folder / "export", precision=precision)
                write_unproved(request, reporter=self.reporter)
        self.written[key] = folder / ("export" if kind else "model")
        return self.written[key]

    def time(self, precision: str, shapes: Sequence[Shape]) -> tuple[Sample, ...]:
        """Time models of several shapes by turns with the uncut parent in the runtime's first precision."""
        folders = [self.reference(), *(self.export(precision, shape) for shape in shapes)]
        folders = list(dict.fromkeys(folders))
        paces = dict(zip(folders, self.paces(folders), strict=True))
        parent = paces[folders[0]].speed.value
        return tuple(
            Sample(
                runtime=self.engine.name,
                precision=precision,
                shape=shape,
                work=work_of(self.sizes, shape, self.engine.layouts[precision]),
                decode=pace.ratio.value * parent,
                memory=pace.memory,
                parent_decode=parent,
                ratio=pace.ratio,
            )
            for shape in shapes
            for pace in [paces[self.export(precision, shape)]]
        )

    def reference(self) -> Path:
        """Write the uncut parent in the precision that multiples of its speed refer to."""
        return self.export(self.engine.timed[0], self.whole)

    def paces(self, folders: Sequence[Path]) -> list[Pace]:
        """Time exported models by turns, and load each in a process of its own where memory is measured."""
        work, reporter = self.workload, self.reporter
        fresh = [folder for folder in folders if self.memory and folder not in self.peaks]
        for folder in reporter.track(fresh, title="Loading in fresh processes", total=len(fresh)):
            self.peaks[folder] = load_in_fresh_process(str(folder), "cpu", work).peak
        models = [open_model(str(folder), device="cpu", reporter=reporter) for folder in folders]
        turns = take_turns(models, work, reporter)
        return [
            Pace(speed=median_interval(own), ratio=paired_ratio(own, turns[0]), memory=self.peaks.get(folder))
            for folder, own in zip(folders, turns, strict=True)
        ]

    @property
    def whole(self) -> Shape:
        """Shape of the parent."""
        return self.sizes.whole


def cut_anyhow(parent: Parent, shape: Shape, folder: Path) -> Parent:
    """Cut a parent to a shape, keeping the first units of everything, and save it as a plain folder."""
    model: Any = assets.load_model(parent.path, dtype=torch.bfloat16)
    tokenizer: Any = assets.load_tokenizer(parent.path)
    whole = shape_of(model)
    tokens = None if shape.vocab_size == whole.vocab_size else vocab.keep_tokens(tokenizer, {}, shape.vocab_size)
    plan = PrunePlan(
        base_model=parent.ref,
        method="rehearsal",
        seed=0,
        layers=tuple(range(shape.layers)),
        ffn=(tuple(range(shape.intermediate_size)),) * shape.layers,
        kv_groups=(tuple(range(shape.kv_groups)),) * shape.layers,
        tokens=tokens,
        parameters_before=0,
        parameters_after=0,
        target_parameters=0,
        removed_parameters={},
    )
    model, tokenizer = trim_vocabulary(apply_plan(model, plan), tokenizer, plan)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return replace(parent, path=folder, ref=f"{parent.ref} cut to {shape.layers} layers")


def profile_shapes(whole: Shape, limits: Limits) -> tuple[Shape, ...]:
    """List the shapes that costs are fitted to: the parent, and shapes that are smaller in different ways.

    Args:
        whole: shape of the parent.
        limits: what the planner may choose from; nothing below is rehearsed.
    """
    shapes = []
    for layers, neurons, groups, rows in SHARES:
        widths = [width for width in limits.neuron_widths() if width >= neurons * whole.intermediate_size - NEURON_STEP]
        shapes.append(
            replace(
                whole,
                layers=nearest(limits.layers, layers * whole.layers),
                intermediate_size=widths[0] if neurons < 1 else whole.intermediate_size,
                kv_groups=nearest(limits.kv_groups, groups * whole.kv_groups),
                vocab_size=limits.vocab_size(round(rows * whole.vocab_size / VOCAB_STEP) * VOCAB_STEP),
            )
        )
    return tuple(dict.fromkeys(shapes))


def nearest(numbers: Sequence[int], wanted: float) -> int:
    """Return the number nearest to a wanted one."""
    return min(numbers, key=lambda number: abs(number - wanted))


def check_runtime(engine: Engine) -> None:
    """Refuse to measure in a runtime that is not here.

    Raises:
        AssetError: it is not installed.
    """
    if engine.name == "llama.cpp" and interpreter() is None:
        raise AssetError(
            "Speed and memory in llama.cpp are measured with it: run pip install 'minigpt[gguf-runtime]', name an "
            "interpreter that has it with MINIGPT_LLAMA_PYTHON, or give --device-profile FILE of a device that has it."
        )
