"""Conditional feed-forward layers against dense ones: `python -m benchmarks.fff --json OUT`.

Weights and tokens are random, so that tokens spread over the trees. Every output is checked before anything is timed.
In every round each contestant is timed in turn, with the same threads; a figure is the median over the rounds, so it
holds for this machine under this load only, and the ratios are what to read.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.fff_layers import DTYPES, SHAPES, Dense, Shape, bytes_needed, check, random_trees
from minigpt.conditional.kernels import cpp_cpu, numba_cpu
from minigpt.conditional.kernels.layout import Prepared
from minigpt.conditional.kernels.ops import tree_ffn
from minigpt.conditional.kernels.weights import TreeWeights, interleave
from minigpt.files import write_json
from minigpt.machine import processor_name, versions

BATCHES = (1, 4, 16, 64, 256, 1024, 4096, 16384)
KERNELS = {"numba": numba_cpu.prepare, "cpp": cpp_cpu.prepare}
# Bytes of different tokens that a contestant takes in turn, so that no path is known to the processor beforehand.
_TOKEN_BYTES = 1 << 20
_SWEEP_BYTES = 1 << 26
Run = Callable[[Tensor], Any]


class Contest:
    """Contestants of one batch size that are timed in turn.

    Attributes:
        runs: what to time by name.
        inputs: different tokens [batch, width] for each contestant, taken in turn.
        seconds: times of a call, one for each round.
        cold: times of a first call after other data went through the caches.
    """

    def __init__(self, runs: Mapping[str, Run], inputs: Mapping[str, list[Tensor]], slice_seconds: float) -> None:
        self.runs, self.inputs, self.slice = dict(runs), inputs, slice_seconds
        self.seconds: dict[str, list[float]] = {name: [] for name in runs}
        self.cold: dict[str, list[float]] = {name: [] for name in runs}
        self.sweep = torch.ones(_SWEEP_BYTES // 4)
        self.turn = 0

    def round(self, names: list[str], cold: bool) -> None:
        """Time each contestant for a slice of time, and once before it on cold caches."""
        for name in names:
            run, inputs = self.runs[name], self.inputs[name]
            if cold:
                self.sweep.mul_(1.0)
                self.turn += 1
                self.cold[name].append(timed(run, [inputs[self.turn % len(inputs)]]))
            calls = max(1, min(4096, int(self.slice / max(1e-7, min([1.0, *self.seconds[name], *self.cold[name]])))))
            run(inputs[self.turn % len(inputs)])
            batch = [inputs[(self.turn + i) % len(inputs)] for i in range(calls)]
            self.turn += calls
            self.seconds[name].append(timed(run, batch) / calls)


def timed(run: Run, inputs: list[Tensor]) -> float:
    """Return the seconds that calls take together."""
    started = time.perf_counter()
    for x in inputs:
        run(x)
    return time.perf_counter() - started


def bandwidth(threads: int) -> float:
    """Return the bytes a second that a copy reads and writes."""
    torch.set_num_threads(threads)
    source, target = torch.ones(1 << 26), torch.zeros(1 << 26)
    return 2 * source.numel() * 4 / min(timed(lambda x: target.copy_(x), [source]) for _ in range(7))


def dense_runs(
    shape: Shape, generator: torch.Generator, batch: int, limit: float, with_compiler: bool
) -> Iterator[tuple[str, Run]]:
    """Yield the dense layers by name: neurons, dtype and form. One that takes too long for a round is left out."""
    for neurons in shape.dense:
        for name in ("fp32", "bf16"):
            dense = Dense(shape, neurons, DTYPES[name], generator).eval()
            x = torch.randn(max(1, batch // 16), shape.width, generator=generator).to(DTYPES[name])
            dense(x)
            if timed(dense, [x]) * min(16, batch) > limit:
                continue
            yield f"dense {neurons} {name} eager", dense
            yield f"dense {neurons} {name} in place", dense.in_place
            if with_compiler:
                yield f"dense {neurons} {name} compiled", dense.compiled()


def tokens_of(batch: int, width: int, dtype: torch.dtype, generator: torch.Generator) -> list[Tensor]:
    """Draw several batches of random tokens."""
    count = max(2, min(1024, _TOKEN_BYTES // (batch * width * 4)))
    return [torch.randn(batch, width, generator=generator).to(dtype) for _ in range(count)]


def tree_runs(
    trees: Mapping[str, TreeWeights], kernels: list[str], inputs: Mapping[str, list[Tensor]]
) -> Iterator[tuple[str, Run, dict[str, Any]]]:
    """Yield conditional layers by name with what is known before they are timed: checked outputs, bytes."""
    for name, weights in trees.items():
        for kernel in kernels:
            prepared: Prepared = KERNELS[kernel](weights)
            tokens = inputs["bf16" if name != "fp32" else "fp32"]
            y, visits = prepared.visit(tokens[0])
            facts = {"max_error": check(weights, tokens[0], y, visits), "dtype": name, "kernel": kernel}
            facts["bytes"] = bytes_needed(weights, tokens[0], visits)
            room = torch.empty_like(tokens[0])
            assert torch.equal(prepared(tokens[0], room), y)
            yield f"{kernel} {name}", lambda x, run=prepared, out=room: run(x, out), facts


def cell(
    shape: Shape, trees: Mapping[str, TreeWeights], batch: int, options: argparse.Namespace, speed: float
) -> list[dict[str, Any]]:
    """Measure one batch size of one shape: a row for each dense layer at its best and each kernel."""
    torch.compiler.reset()
    generator = torch.Generator().manual_seed(batch)
    inputs = {name: tokens_of(batch, shape.width, DTYPES[name], generator) for name in ("fp32", "bf16")}
    runs, facts = {}, {}
    for name, run, known in tree_runs(trees, options.kernels, inputs):
        runs[name], facts[name] = run, known
    dense = dict(dense_runs(shape, generator, batch, options.limit, options.compile))
    feed = {name: inputs["bf16" if "fp32" not in name else "fp32"] for name in (*runs, *dense)}
    contest = Contest({**dense, **runs}, feed, options.slice)
    for name in contest.runs:
        contest.runs[name](feed[name][0])  # what compiles at the first call
    names = list(contest.runs)
    for number in range(options.rounds):
        if number == 2:
            names = [*best_of(contest, dense).values(), *runs]
        contest.round(names, cold=batch <= 64)
    return rows_of(shape, batch, contest, facts, dense, speed)


def rows_of(
    shape: Shape,
    batch: int,
    contest: Any,
    facts: Mapping[str, Mapping[str, Any]],
    dense: Mapping[str, Run],
    speed: float,
) -> list[dict[str, Any]]:
    """Return a row for each dense layer at its best and for each kernel; `speed` is that of memory."""
    best = best_of(contest, dense)
    rows = [row(shape, batch, contest, name, best, {"dtype": key[1], "kernel": name}) for key, name in best.items()]
    for name, known in facts.items():
        rows.append(row(shape, batch, contest, name, best, known))
        rows[-1]["share_of_bandwidth"] = known["bytes"] / speed / rows[-1]["seconds"]
    return rows


def best_of(contest: Any, dense: Mapping[str, Run]) -> dict[tuple[int, str], str]:
    """Return the fastest form of each dense layer by neurons and dtype."""
    best: dict[tuple[int, str], str] = {}
    for name in dense:
        _, neurons, dtype, *_form = name.split()
        key = (int(neurons), dtype)
        if key not in best or median(contest.seconds[name]) < median(contest.seconds[best[key]]):
            best[key] = name
    return best


def row(
    shape: Shape,
    batch: int,
    contest: Any,
    name: str,
    best: Mapping[tuple[int, str], str],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return one row of the result."""
    seconds = median(contest.seconds[name])
    dense = name.startswith("dense")
    neurons = int(name.split()[1]) if dense else shape.nodes
    result = {"shape": shape.name, "batch": batch, "device": "cpu", "threads": torch.get_num_threads()}
    result |= facts
    result |= {"width": shape.width, "nodes": neurons, "visited": neurons if dense else shape.visited}
    result |= {"seconds": seconds, "fastest": min(contest.seconds[name]), "trees": 0 if dense else shape.trees}
    if contest.cold[name]:
        result["seconds_cold"] = median(contest.cold[name])
    for dtype in ("fp32", "tf32", "bf16"):
        for other in shape.dense:
            rival = best.get((other, dtype))
            if rival is None and dtype == "tf32":
                continue  # of GPUs alone
            suffix = "" if other == shape.dense[-1] else f"_of_{other}"
            ratio = None if rival is None else median(contest.seconds[rival]) / seconds
            result[f"speedup_vs_dense_{dtype}{suffix}"] = ratio
            if rival and contest.cold[name]:
                result[f"cold_speedup_vs_dense_{dtype}{suffix}"] = median(contest.cold[rival]) / result["seconds_cold"]
    if not dense:
        result["neuron_limit"] = shape.dense[-1] / shape.visited
    return result


def dispatch(kernels: list[str], calls: int = 2000) -> dict[str, float]:
    """Measure what stands between a call and its kernel: a layer of one neuron, directly and through the operator."""
    rows = torch.ones(1, 1, 16)
    weights, x, costs = interleave(TreeWeights(rows, rows, 0, "relu")), torch.ones(1, 16), {}
    with torch.inference_mode():
        for kernel in kernels:
            direct = KERNELS[kernel](weights)

            def through(x: Tensor, kernel: str = kernel) -> Tensor:
                return tree_ffn(x, weights, kernel=kernel)

            for name, run in ((f"{kernel} direct", direct), (f"{kernel} operator", through)):
                run(x)
                costs[name] = min(timed(run, [x] * calls) / calls for _ in range(5))
    return costs


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything that the options ask for."""
    if options.device == "cuda":
        return measured_on_gpu(options)
    torch.set_num_threads(options.threads)
    speed = bandwidth(options.threads)
    machine: dict[str, Any] = {"processor": processor_name(), "cores": os.cpu_count(), "threads": options.threads}
    machine |= {"copy_bytes_per_second": speed, "load_before": os.getloadavg()}
    machine |= {"versions": versions("-", ("torch", "numba", "numpy"))}
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        if shape.name not in options.shapes:
            continue
        drawn = random_trees(shape, torch.Generator().manual_seed(0))
        trees = {name: interleave(drawn, DTYPES[name]) for name in options.dtypes}
        for batch in options.batches:
            with torch.no_grad():
                new = cell(shape, trees, batch, options, speed)
            rows += new
            print(*map(line, new), sep="\n", flush=True)
            write_json(options.json, {"machine": machine, "rows": rows})  # so that a run that is stopped leaves them
    machine |= {"load_after": os.getloadavg(), "dispatch_seconds": dispatch(options.kernels)}
    return {"machine": machine, "rows": rows}


def measured_on_gpu(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything that the options ask for on the GPU."""
    from benchmarks import fff_gpu  # it needs Triton

    properties, speed = torch.cuda.get_device_properties(0), fff_gpu.bandwidth()
    machine: dict[str, Any] = {"gpu": properties.name, "second_level_cache": properties.L2_cache_size}
    machine |= {"copy_bytes_per_second": speed, "versions": versions("-", ("torch", "triton"))}
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        if shape.name in options.shapes:
            for new in fff_gpu.measured(shape, options, partial(rows_of, speed=speed)):
                rows += new
                print(*map(line, new), sep="\n", flush=True)
                write_json(options.json, {"machine": machine, "rows": rows})
    return {"machine": machine, "rows": rows}


def line(row: Mapping[str, Any]) -> str:
    """Describe a row in one line."""
    ratios = [row[f"speedup_vs_dense_{dtype}"] for dtype in ("fp32", "bf16")]
    text = " ".join("-" if ratio is None else f"{ratio:.1f}x" for ratio in ratios)
    if "cold_speedup_vs_dense_bf16" in row:
        text += f", cold {1e6 * row['seconds_cold']:.1f} us {row['cold_speedup_vs_dense_bf16']:.1f}x"
    return f"{row['shape']} {row['batch']} {row['kernel']} {row['dtype']}: {1e6 * row['seconds']:.1f} us, {text}"


def main() -> None:
    """Read the options, measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--shapes", nargs="+", default=[shape.name for shape in SHAPES])
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["fp32", "bf16", "int8"])
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the rows of the GPU alone")
    parser.add_argument("--forms", nargs="+", choices=("walk", "group"), default=["walk", "group"], help="on the GPU")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slice", type=float, default=0.01, help="seconds of a contestant in a round, at least a call")
    parser.add_argument("--limit", type=float, default=10.0, help="leave out dense layers that take longer than this")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave out compiled dense layers")
    options = parser.parse_args()
    write_json(options.json, measured(options))


if __name__ == "__main__":
    main()
