"""Parents that are larger than the memory: predicted and measured peaks and seconds of each stage.

A parent of random weights is written shard by shard, so that it never is in memory. Statistics, plan, cut and save then
run on random text, streamed or resident, and the result is a plain model folder. Random weights take the memory and the
time of real ones; quality is measured elsewhere.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import large_healing
import torch
from large_parent import SHAPES, WINDOW, config_for, make_parent, text

from minigpt import assets
from minigpt.exporting import torch_nf4
from minigpt.exporting.request import ExportRequest
from minigpt.machine import device_name, free_memory, release
from minigpt.methods import Method, method_named
from minigpt.methods.cut import cut_units, repair_of
from minigpt.methods.material import Material
from minigpt.methods.norms import weight_norms
from minigpt.methods.ranking import rank
from minigpt.pipeline.opened import config_of
from minigpt.planning import memory
from minigpt.planning.budget import allowed_axes, budget_for
from minigpt.planning.memory import MemorySettings, Peak, Work
from minigpt.planning.memory_forms import choose_form, describe
from minigpt.planning.planner import decide_sensitivity, measure_curves, plan_units
from minigpt.planning.settings import PlanSettings
from minigpt.progress import SILENT
from minigpt.pruning.settings import RepairSettings
from minigpt.pruning.waiting import PROCESSOR, Home, OnDisk
from minigpt.streaming import probes, statistics
from minigpt.streaming.parent import StreamedParent
from minigpt.streaming.saving import prune_to_folder
from minigpt.transformer import stats
from minigpt.transformer.arch import arch_of, shape_of
from minigpt.types import Document, PrunePlan

# Words of the dev text that probes read; the tokenizer knows bytes only.
TEXT = "The heart pumps blood through the arteries and the veins of the body. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One stage: what was predicted, and what was measured."""

    stage: str
    seconds: float
    measured: int
    predicted: int | None


class Meter:
    """Peaks and seconds of stages, of the process on a processor and of tensors on a GPU."""

    def __init__(self, device: str) -> None:
        self.cuda, self.rows = device.startswith("cuda"), list[Row]()

    def stage(self, name: str, work: Callable[[], Any], predicted: int | None = None) -> Any:
        """Run a stage and note its peak."""
        release()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")
        started = time.perf_counter()
        result = work()
        if self.cuda:
            torch.cuda.synchronize()
        row = Row(stage=name, seconds=time.perf_counter() - started, measured=self._peak(), predicted=predicted)
        self.rows.append(row)
        wanted = ""
        if predicted is not None:
            wanted = f"  predicted {predicted / 1e9:6.2f}, measured / predicted {row.measured / predicted:.2f}"
        print(f"{name:14s} {row.seconds:8.1f} s  peak {row.measured / 1e9:6.2f} GB{wanted}", flush=True)
        return result

    def _peak(self) -> int:
        """Read the peak since the stage began."""
        if self.cuda:
            return int(torch.cuda.max_memory_allocated())
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


class Bench:
    """One parent, one method, one form."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder, self.config = options, folder, config_for(options)
        self.method: Method = method_named(options.method)
        self.parts = memory.parts_of(self.config)
        self.dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        self.repair: RepairSettings | None = repair_of(self.method, RepairSettings(tokens=options.repair_tokens))
        self.shape = shape_of(self.config)
        self.batches = text(options, self.shape.vocab_size)
        self.meter = Meter(options.device)
        self.free, self.total = free_memory(options.device)
        self.tokenizer: Any = None
        self.budget: Any = None

    def settings(self) -> PlanSettings:
        """Return settings that leave one axis to cut, unless costs are probed."""
        options, widths = self.options, {}
        if "ffn" in self.method.axes:
            # The tokenizer knows bytes alone, so that the vocabulary stays.
            widths = {"vocab_size": self.shape.vocab_size}
            if not options.probes:
                widths |= {"layers": self.shape.layers, "kv_groups": self.shape.kv_groups}
            widths = {name: value for name, value in widths.items() if self._cuts(name)}
        return PlanSettings(tokens=options.tokens, probe_tokens=options.probes or 1, **widths)

    def _cuts(self, width: str) -> bool:
        """Return whether the method may cut the axis of a width."""
        return {"layers": "layers", "kv_groups": "kv_groups", "vocab_size": "vocab"}[width] in self.method.axes

    def work(self, kept: float = 1.0) -> Work:
        """Return what is done, for the prediction."""
        options = self.options
        return Work(
            tokens=options.tokens,
            batch_tokens=options.batch_tokens,
            window=WINDOW,
            number_bytes=2 if self.dtype == torch.bfloat16 else 4,
            accelerated=options.device != "cpu",
            repair_tokens=min(options.repair_tokens, options.tokens) if self.repair is not None else 0,
            probe_tokens=options.probes,
            kept=kept,
        )

    def run(self) -> dict[str, Any]:
        """Run all stages and return the record."""
        options, method = self.options, self.method
        wanted = MemorySettings(streaming=options.streaming, text=options.text)
        free, total = self.free, self.total
        host, _ = free_memory("cpu")
        form, peak = choose_form(
            self.parts,
            self.work(),
            wanted,
            free=free,
            total=total,
            streams=method.streams,
            method=method.name,
            host=host,
        )
        print(describe(self.parts, form, peak, total=total), flush=True)
        self.tokenizer = assets.load_tokenizer(self.folder)
        self.budget = budget_for(
            self.config,
            self.tokenizer,
            method,
            round(self.parts.parameters * options.size),
            settings=self.settings(),
        )
        peaks = {peak.stage: peak for peak in memory.pruning_peaks(self.parts, self.work(), form)}
        out = self.folder.with_name(self.folder.name + "-pruned")
        shutil.rmtree(out, ignore_errors=True)
        if form == "resident":
            self._resident(peaks, out)
        else:
            self._streamed(peaks, out, form)
        if options.heal:
            options.total = total
            size = memory.parts_of(config_of(out))
            large_healing.heal(options, self.folder, out, (self.parts, size), self.meter.stage)
        if options.four_bit:
            self.meter.stage("save in 4 bits", lambda: four_bit(out, options.device))
        saved = sum(path.stat().st_size for path in out.glob("*.safetensors"))
        return {
            "options": {name: str(value) for name, value in vars(options).items()},
            "device": device_name(options.device),
            "parameters": self.parts.parameters,
            "form": form,
            "load": os.getloadavg()[0],
            "saved_bytes": saved,
            "stages": [asdict(row) for row in self.meter.rows],
        }

    def _streamed(self, peaks: dict[str, Peak], out: Path, form: memory.Form) -> None:
        """Statistics, plan, cut and save with one layer in memory."""
        meter, device = self.meter, self.options.device
        home: Home = OnDisk(self.options.work) if form == "spilled" else PROCESSOR
        parent = StreamedParent(self.folder, dtype=self.dtype, device=device, home=home)
        stage = peaks["statistics"].device
        statistics_, norms = meter.stage("statistics", lambda: statistics.collect(parent, self.batches), stage)
        material = Material(model=parent.model, batches=self.batches, statistics=statistics_, norms=norms)
        plan = self._plan(material, peaks, lambda *args, **more: probes.measure_curves(parent, *args, **more))

        def save() -> None:
            prune_to_folder(
                parent,
                self.tokenizer,
                plan,
                out,
                dtype=torch.bfloat16,
                repair=self.repair,
                batches=self.batches if self.repair is not None else (),
            )

        meter.stage("cut and save", save, self._pruning(plan, form))
        if isinstance(home, OnDisk):
            disk = max(peak.disk for peak in peaks.values())
            print(f"{home.size / 1e9:.2f} GB of text on the disk, predicted {disk / 1e9:.2f}", flush=True)

    def _resident(self, peaks: dict[str, Peak], out: Path) -> None:
        """Statistics, plan, cut and save with all of the parent in memory."""
        meter, device = self.meter, self.options.device
        model = meter.stage("load", lambda: assets.load_model(self.folder, dtype=self.dtype, device=device))
        stage = peaks["statistics"].device
        statistics_ = meter.stage("statistics", lambda: stats.collect(model, self.batches), stage)
        material = Material(model=model, batches=self.batches, statistics=statistics_, norms=weight_norms(model))
        plan = self._plan(material, peaks, measure_curves)

        def save() -> None:
            cut, _ = cut_units(model, plan, self.method, repair=self.repair, batches=self.batches)
            cut.to(torch.bfloat16).save_pretrained(out)
            self.tokenizer.save_pretrained(out)

        meter.stage("cut and save", save, self._pruning(plan, "resident"))

    def _plan(self, material: Material, peaks: dict[str, Peak], measure: Callable[..., Any]) -> PrunePlan:
        """Rank and choose, with probes where they are asked for."""
        options, method = self.options, self.method
        scores = self.meter.stage("rank", lambda: rank(method, material))
        predicted = peaks["probes"].device if options.probes else None

        def curves() -> Any:
            return measure(
                method,
                material,
                self.tokenizer,
                scores,
                [Document(text=TEXT * 40, source="large")],
                axes=allowed_axes(method, None, arch_of(self.config)) - {"vocab"},
                repair=self.repair,
                probe_tokens=options.probes,
                window=WINDOW,
            )

        def plan() -> PrunePlan:
            accelerated = options.device != "cpu"
            settings = replace(self.settings(), sensitivity="measure")
            costs = decide_sensitivity(self.budget, self.config, settings, accelerated=accelerated, measure=curves)
            return plan_units(method, material, self.tokenizer, self.budget, costs, scores)

        result: PrunePlan = self.meter.stage("plan", plan, predicted)
        widths = f"{len(result.layers)} layers, {len(result.ffn[0])} neurons"
        print(f"{widths}, {result.parameters_after:,} parameters", flush=True)
        return result

    def _pruning(self, plan: PrunePlan, form: memory.Form) -> int:
        """Predict the peak of the cut for the width that was planned."""
        work = self.work(len(plan.ffn[0]) / self.shape.intermediate_size)
        return memory.pruning_peaks(self.parts, work, form)[-1].device


def four_bit(folder: Path, device: str) -> None:
    """Save the pruned model in 4 bits, as `minigpt export --format torch-4bit` does."""
    target = folder.with_name(folder.name + "-4bit")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    source = assets.Parent(path=folder, ref=str(folder), precision="bfloat16", fingerprint="")
    torch_nf4.write(ExportRequest(source=source, format="torch-4bit", output_dir=target, device=device), target, SILENT)
    size = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    print(f"{size / 1e9:.2f} GB in 4 bits", flush=True)


def arguments(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("layers", 12), ("hidden", 1024), ("ffn", 2752), ("vocab", 32000), ("kv-heads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("tokens", 2048), ("batch-tokens", 2048), ("repair-tokens", 0), ("probes", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--shape", choices=SHAPES, help="shape of a published model, in place of Llama's")
    parser.add_argument("--method", default="contextual")
    parser.add_argument("--size", type=float, default=0.75, help="fraction of the parameters to keep")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--streaming", choices=("auto", "always", "never"), default="auto")
    parser.add_argument("--text", choices=("auto", "memory", "disk"), default="auto", help="where streamed text waits")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--four-bit", action="store_true", help="save the pruned model in 4 bits, too")
    large_healing.add_arguments(parser)
    parser.add_argument("--work", type=Path, default=Path("large-parent"), help="folder of the parent and the result")
    parser.add_argument("--json", type=Path, help="file to append the record to")
    parser.add_argument("--keep", action="store_true", help="keep parent and result")
    return parser.parse_args(arguments)


def main(argv: list[str]) -> None:
    """Make the parent, run the stages, and print or write what was measured."""
    options = arguments(argv)
    started = time.perf_counter()
    shape = f"{options.layers}x{options.hidden}x{options.ffn}x{options.vocab}x{options.kv_heads}"
    folder = options.work / (options.shape or shape)
    # In a process of its own, which takes the memory along that it leaves behind.
    writer = multiprocessing.get_context("spawn").Process(target=make_parent, args=(folder, config_for(options)))
    writer.start()
    writer.join()
    print(f"parent         {time.perf_counter() - started:8.1f} s", flush=True)
    record = Bench(options, folder).run()
    print(
        f"all            {time.perf_counter() - started:8.1f} s, {record['saved_bytes'] / 1e9:.2f} GB saved", flush=True
    )
    if options.json:
        with options.json.open("a") as file:
            file.write(json.dumps(record) + "\n")
    if not options.keep:
        shutil.rmtree(options.work, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
