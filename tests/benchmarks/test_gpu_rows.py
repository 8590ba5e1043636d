"""The benchmark of one row-skipping layer checks what it times, and names sizes of programs that do not work."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from benchmarks import gpu_rows
from benchmarks.gpu_decoder import Sizes, random_model
from minigpt.conditional.kernels.triton_parts import interpreted
from minigpt.conditional.kernels.triton_rows import Launch

SIZES = Sizes(layers=2, hidden=40, ffn=50, heads=1, kv_heads=1, vocab=1)


@pytest.mark.skipif(not interpreted(), reason="needs TRITON_INTERPRET=1")
@torch.no_grad()
def test_each_size_is_checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu_rows, "microseconds", lambda _ffns, _x: 10.0)
    torch.manual_seed(0)
    layers, x = random_model(SIZES, "cpu", torch.float32).layers, torch.randn(2, 40)
    for name in ("threshold:0.25", "relu:0.25", "topk:0.5"):
        gpu_rows.report(name, Launch(8, 32, 4), layers, x)
    gpu_rows.report("threshold:1", Launch(7, 32, 4), layers, x)  # not a power of two
    *lines, broken = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("error 0.0000" in line and "10.00 us" in line for line in lines)
    assert "Error" in broken and "us," not in broken
