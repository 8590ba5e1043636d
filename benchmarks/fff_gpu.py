"""The GPU rows of `fff.py`: trees by Triton against the best of cuBLAS, all replayed from captured graphs.

A graph holds a number of calls with different tokens, and events around its replays give the time of a call. Cold times
are those of one call after a fill of memory that is several times the second-level cache; what an empty graph takes in
the same place is in the file, too. Outputs are checked on the GPU in fp64 before anything is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.fff_layers import DTYPES, Dense, Shape, bytes_needed, check, random_trees
from benchmarks.graphs import between, captured
from minigpt.conditional.kernels import triton_gpu
from minigpt.conditional.kernels.weights import TreeWeights, interleave

Run = Callable[[Tensor], Any]
# Bytes of different tokens that a contestant takes in turn, and of the fill that empties the second-level cache.
_TOKEN_BYTES, _FILL_BYTES = 1 << 22, 1 << 28
# Seconds that a graph should last, so that its launch does not count, and the most calls in one.
_GRAPH_SECONDS, _CALLS = 4e-4, 64


class Captured:
    """A contestant in captured graphs.

    Attributes:
        calls: calls in the long graph.
        many: graph of these calls.
        one: graph of a single call.
    """

    def __init__(self, run: Run, inputs: list[Tensor]) -> None:
        for x in inputs[:3]:
            run(x)
        torch.cuda.synchronize()
        seconds = between(lambda: [run(x) for x in inputs[:3]]) / len(inputs[:3])
        self.calls = max(1, min(_CALLS, int(_GRAPH_SECONDS / seconds)))
        self.one = captured(lambda: run(inputs[0]))
        batch = [inputs[number % len(inputs)] for number in range(self.calls)]
        self.many = captured(lambda: [run(x) for x in batch])


class GpuContest:
    """Contestants of one batch size that are timed in turn.

    Attributes:
        runs: what to time by name.
        seconds: times of a call, one for each round.
        cold: times of a call after the fill.
        empty: times of an empty graph after the fill.
    """

    def __init__(self, runs: Mapping[str, Run], inputs: Mapping[str, list[Tensor]], slice_seconds: float) -> None:
        self.runs, self.slice = dict(runs), slice_seconds
        self.graphs = {name: Captured(run, inputs[name]) for name, run in runs.items()}
        self.seconds: dict[str, list[float]] = {name: [] for name in runs}
        self.cold: dict[str, list[float]] = {name: [] for name in runs}
        self.fill = torch.empty(_FILL_BYTES, dtype=torch.uint8, device="cuda")
        small = torch.zeros(1, device="cuda")
        self.nothing, self.empty = captured(lambda: small.add_(1)), list[float]()

    def round(self) -> None:
        """Time each contestant once on a cold cache, and for a slice of time."""
        self.empty.append(self._after_fill(self.nothing))
        for name, graphs in self.graphs.items():
            self.cold[name].append(self._after_fill(graphs.one))
            usual = min([1.0, *self.seconds[name]]) * graphs.calls
            times = max(1, min(50, int(self.slice / usual)))
            graphs.many.replay()
            self.seconds[name].append(between(lambda g=graphs.many, n=times: _repeat(g, n)) / times / graphs.calls)

    def _after_fill(self, graph: torch.cuda.CUDAGraph) -> float:
        """Return the seconds of one replay after the fill, during which the launches are queued."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.fill.zero_()
        self.fill.fill_(1)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000


def _repeat(graph: torch.cuda.CUDAGraph, times: int) -> None:
    """Replay a graph several times."""
    for _ in range(times):
        graph.replay()


def bandwidth() -> float:
    """Return the bytes a second that a copy on the GPU reads and writes."""
    source = torch.ones(1 << 28, device="cuda")
    target = torch.empty_like(source)
    graph = captured(lambda: target.copy_(source))
    return 2 * source.numel() * 4 / min(between(graph.replay) for _ in range(7))


def in_tf32(run: Run, allowed: bool) -> Run:
    """Return a function that allows matrix products of fp32 to be rounded to tf32, or forbids it."""

    def rounded(x: Tensor) -> Any:
        torch.backends.cuda.matmul.allow_tf32 = allowed
        return run(x)

    return rounded


def dense_runs(layers: Mapping[tuple[int, str], Dense], with_compiler: bool) -> Iterator[tuple[str, Run]]:
    """Yield the dense layers by name: neurons, dtype and form."""
    for (neurons, name), dense in layers.items():
        if name == "bf16":
            yield f"dense {neurons} bf16 eager", dense
            if with_compiler:
                yield f"dense {neurons} bf16 compiled", torch.compile(dense, dynamic=True)
        else:
            yield f"dense {neurons} fp32 eager", in_tf32(dense, False)
            yield f"dense {neurons} tf32 eager", in_tf32(dense, True)


def moved(weights: TreeWeights, dtype: torch.dtype) -> TreeWeights:
    """Return weights on the GPU, with the rows of a neuron side by side."""
    names = ("w_in", "b_in", "w_gate", "w_out")
    values = {name: getattr(weights, name) for name in names}
    return interleave(replace(weights, **{name: v if v is None else v.cuda() for name, v in values.items()}), dtype)


def tree_runs(
    trees: Mapping[str, TreeWeights], forms: list[str], inputs: Mapping[str, list[Tensor]]
) -> Iterator[tuple[str, Run, dict[str, Any]]]:
    """Yield conditional layers by name with what is known before they are timed: checked outputs, bytes."""
    for name, weights in trees.items():
        tokens = inputs["bf16" if name != "fp32" else "fp32"]
        usual = "group" if triton_gpu.grouped(weights, tokens[0]) else "walk"
        for form in forms:
            if form == "group" and (name == "fp32" or len(tokens[0]) < 64):
                continue
            ready = triton_gpu.prepare(weights, form=form)
            y, visits = ready.visit(tokens[0])
            facts: dict[str, Any] = {"max_error": check(weights, tokens[0], y, visits), "dtype": name, "device": "cuda"}
            facts |= {"kernel": f"triton {form}", "usual": form == usual}
            facts["bytes"] = bytes_needed(weights, tokens[0], visits)
            room = torch.empty_like(tokens[0])
            assert differing(ready(tokens[0], room), y) <= len(y) // 1000, "without paths the output is another"
            yield f"triton {form} {name}", lambda x, run=ready, out=room: run(x, out), facts


def differing(one: Tensor, other: Tensor) -> int:
    """Count the tokens whose outputs differ by more than rounding; a score next to zero may fall either way."""
    return int(((one - other).abs() > 2e-2 * (1 + other.abs())).any(-1).sum())


def tokens_of(batch: int, width: int, generator: torch.Generator) -> dict[str, list[Tensor]]:
    """Draw several batches of random tokens, as fp32 and bf16."""
    count = max(2, min(64, _TOKEN_BYTES // (batch * width * 4)))
    drawn = [torch.randn(batch, width, generator=generator).cuda() for _ in range(count)]
    return {name: [x.to(DTYPES[name]) for x in drawn] for name in ("fp32", "bf16")}


def cell(
    shape: Shape,
    trees: Mapping[str, TreeWeights],
    dense: Mapping[str, Run],
    batch: int,
    options: argparse.Namespace,
) -> tuple[GpuContest, dict[str, dict[str, Any]]]:
    """Check and time one batch size of one shape: the contest, and what is known of the trees."""
    inputs = tokens_of(batch, shape.width, torch.Generator().manual_seed(batch))
    runs, facts = {}, {}
    for name, run, known in tree_runs(trees, options.forms, inputs):
        runs[name], facts[name] = run, known
    feed = {name: inputs["bf16" if "fp32" not in name and "tf32" not in name else "fp32"] for name in (*dense, *runs)}
    contest = GpuContest({**dense, **runs}, feed, options.slice)
    for _ in range(options.rounds):
        contest.round()
    return contest, facts


def measured(shape: Shape, options: argparse.Namespace, rows_of: Callable[..., list[dict[str, Any]]]) -> Iterator[Any]:
    """Yield the rows of each batch size of a shape.

    Args:
        shape: the layer.
        options: options of `fff.py`.
        rows_of: makes the rows of a contest, from shape, batch, contest, facts and dense layers.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = random_trees(shape, generator)
    trees = {name: moved(drawn, DTYPES[name]) for name in options.dtypes}
    layers = {
        (neurons, name): Dense(shape, neurons, DTYPES[name], generator).cuda().eval()
        for neurons in shape.dense
        for name in ("fp32", "bf16")
    }
    torch.compiler.reset()
    dense = dict(dense_runs(layers, options.compile))
    for batch in options.batches:
        contest, facts = cell(shape, trees, dense, batch, options)
        rows = rows_of(shape, batch, contest, facts, dense)
        for row in rows:
            row["device"], row["empty_seconds_cold"] = "cuda", median(contest.empty)
        yield rows
