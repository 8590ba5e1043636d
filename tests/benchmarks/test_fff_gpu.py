"""The GPU rows of the benchmark of conditional layers: the file has the schema, on a GPU; bytes and limits anywhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
pytest.importorskip("numba")

from benchmarks import fff, fff_gpu, fff_layers

SMALL = fff_layers.Shape("small", 64, (96, 128), 2, 5, True, "silu")


@pytest.mark.gpu
def test_the_file_has_rows_of_both_forms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fff, "SHAPES", (SMALL,))
    target = tmp_path / "out.json"
    options = ["--shapes", "small", "--batches", "1", "512", "--rounds", "3", "--slice", "0.001", "--no-compile"]
    monkeypatch.setattr(sys, "argv", ["fff", "--device", "cuda", "--json", str(target), *options])
    fff.main()
    rows = [row for row in json.loads(target.read_text("utf-8"))["rows"] if row["kernel"].startswith("triton")]
    forms = [(row["batch"], row["kernel"], row["dtype"]) for row in rows]
    assert forms[:3] == [(1, "triton walk", dtype) for dtype in ("fp32", "bf16", "int8")]
    assert (512, "triton group", "bf16") in forms and len(forms) == 3 + 5
    assert sum(row["usual"] for row in rows if row["batch"] == 512) == 3
    assert all(row["device"] == "cuda" and row["seconds"] > 0 and row["seconds_cold"] > 0 for row in rows)


def test_outputs_that_differ_are_counted() -> None:
    one = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    other = one * 1.001
    other[3, 2] += 1
    assert fff_gpu.differing(one, other) == 1
