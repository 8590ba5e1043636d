"""The benchmark of conditional layers: wrong outputs stop it, bytes are counted, and the file has the schema."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("numba")

from benchmarks import fff, fff_layers
from minigpt.conditional import reference
from minigpt.conditional.kernels import numba_cpu
from minigpt.conditional.kernels.weights import interleave

SMALL = fff_layers.Shape("small", 32, (24, 40), 2, 3, True, "silu")
KEYS = {"batch", "device", "dtype", "kernel", "width", "nodes", "visited", "seconds", "max_error"}
KEYS |= {"speedup_vs_dense_fp32", "speedup_vs_dense_bf16"}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_the_file_has_a_row_for_each_kernel_and_the_best_dense_layers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fff, "SHAPES", (SMALL,))
    target = tmp_path / "out.json"
    threads = torch.get_num_threads()
    options = ["--shapes", "small", "--batches", "1", "5", "--kernels", "numba", "--threads", "1", "--rounds", "3"]
    arguments = ["fff", "--json", str(target), *options, "--slice", "0.0001", "--no-compile"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(fff, "bandwidth", lambda _threads: 1e9)
    try:
        fff.main()
    finally:
        torch.set_num_threads(threads)
    result = json.loads(target.read_text("utf-8"))
    kernels = [row for row in result["rows"] if not row["kernel"].startswith("dense")]
    assert [(row["batch"], row["dtype"]) for row in kernels] == [
        (batch, dtype) for batch in (1, 5) for dtype in ("fp32", "bf16", "int8")
    ]
    assert len(result["rows"]) == 2 * (3 + 4)  # dense: two sizes in two types
    for row in kernels:
        assert set(row) >= KEYS
        assert (row["nodes"], row["visited"], row["width"]) == (30, 8, 32)
        assert row["neuron_limit"] == 40 / 8
        rivals = [other for other in result["rows"] if other["batch"] == row["batch"] and other["nodes"] == 40]
        seconds = {other["dtype"]: other["seconds"] for other in rivals}
        assert row["speedup_vs_dense_bf16"] == pytest.approx(seconds["bf16"] / row["seconds"])
        assert 0 <= row["max_error"] < (1e-5 if row["dtype"] == "fp32" else 0.05)
    costs = result["machine"]["dispatch_seconds"]
    assert costs["numba operator"] > costs["numba direct"] > 0


def test_wrong_outputs_and_paths_are_seen() -> None:
    weights = interleave(fff_layers.random_trees(SMALL, generator()))
    x = torch.randn(40, 32, generator=generator())
    y, visits = numba_cpu.prepare(weights).visit(x)
    assert fff_layers.check(weights, x, y, visits) < 1e-5
    off = y.clone()
    off[-1, -1] += 0.01
    with pytest.raises(AssertionError):
        fff_layers.check(weights, x, off, visits)
    path = visits.path.clone()
    path[:, 0, 1] = 3 - path[:, 0, 1]  # the other child
    with pytest.raises(AssertionError, match="leaves the way"):
        fff_layers.check(weights, x, y, replace(visits, path=path))


def test_every_visited_row_counts_once() -> None:
    weights = interleave(fff_layers.random_trees(SMALL, generator()))
    x = torch.randn(1, 32, generator=generator())
    _, visits = numba_cpu.prepare(weights).visit(x)
    tokens = 2 * 32 * 4  # in and out
    assert fff_layers.bytes_needed(weights, x, visits) == weights.bytes_read() + tokens
    twice = torch.cat([x, x])
    _, visits = numba_cpu.prepare(weights).visit(twice)
    assert fff_layers.bytes_needed(weights, twice, visits) == weights.bytes_read() + 2 * tokens


def test_forms_of_the_dense_layer_agree() -> None:
    dense = fff_layers.Dense(SMALL, 24, torch.float32, generator())
    x = torch.randn(6, 32, generator=generator())
    assert dense.w_gate is not None
    plain = reference.dense_ffn(x, dense.w_in, dense.b_in, dense.w_gate, dense.w_out.t(), activation="silu")
    with torch.no_grad():
        torch.testing.assert_close(dense(x), plain, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(dense.in_place(x), plain, rtol=1e-5, atol=1e-6)


def test_dense_layers_that_take_too_long_are_left_out() -> None:
    names = [name for name, _ in fff.dense_runs(SMALL, generator(), 64, 0.0, False)]
    assert names == []
    assert len(list(fff.dense_runs(SMALL, generator(), 64, 100.0, False))) == 8
