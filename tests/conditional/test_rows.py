"""Layers without gradients run in kernels, which give what the plain references give and see changes of the weights."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from minigpt.conditional.base import ConditionalFFN
from minigpt.conditional.kernels import ops, rows
from minigpt.conditional.layers import LeafSettings, ReluSettings, ThresholdSettings, TreeSettings, build
from tests.support.conditional import CASES, layer_of, plain, tokens

pytest.importorskip("numba")
# A layer that reads columns has no kernel.
KERNELS = [case for case in CASES if case not in ("threshold", "gated threshold")]
# Layers of a size at which neurons are divided among threads.
LARGE = {
    "relu": ReluSettings(hidden_size=260, neurons=1100, gated=True),
    "top-k": ReluSettings(hidden_size=260, neurons=1100, gated=True, activation="silu", top_k=150),
    "threshold": ThresholdSettings(hidden_size=260, neurons=1100, gated=True, activation="silu", t_act=0.05),
    "leaves": LeafSettings(hidden_size=260, depth=1, leaf_width=1100, gated=True, activation="silu"),
    "trees": TreeSettings(hidden_size=260, depth=4, trees=7, gated=True, activation="silu"),
}


def kernel_of(layer: ConditionalFFN, x: torch.Tensor) -> object:
    with torch.no_grad():
        return layer._kernel_for(x)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", KERNELS)
def test_the_kernel_is_the_reference(case: str, count: int) -> None:
    layer = layer_of(case, dtype=torch.float32).eval()
    with torch.no_grad():
        for seed in range(20):
            x = tokens(count, seed=seed, dtype=torch.float32)
            assert kernel_of(layer, x) is not None
            torch.testing.assert_close(layer(x), plain(layer, x))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("kind", LARGE)
def test_threads_share_the_neurons(kind: str, threads: int) -> None:
    torch.manual_seed(0)
    layer, before = build(LARGE[kind]).eval(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            for _ in range(3):
                x = torch.randn(1, 260)
                assert kernel_of(layer, x) is not None
                torch.testing.assert_close(layer(x), plain(layer.double(), x.double()).float(), atol=1e-5, rtol=1e-4)
                layer.float()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", [kind for kind in LARGE if kind != "trees"])
def test_rows_are_read_in_bf16_where_that_changes_no_number(kind: str) -> None:
    torch.manual_seed(2)
    saved, own = build(LARGE[kind]).eval().bfloat16().float(), build(LARGE[kind]).eval()
    for layer, dtype in ((saved, torch.bfloat16), (own, torch.float32)):
        x = torch.randn(1, 260)
        kernel: Any = kernel_of(layer, x)
        assert kernel.weights.w_in.dtype == dtype
        with torch.no_grad():
            for _ in range(2):
                exact = plain(copy.deepcopy(layer).double(), x.double()).float()
                torch.testing.assert_close(layer(x), exact, atol=1e-5, rtol=1e-4)
                layer.w_out.mul_(2)  # which the next call sees, also where rows are copies


def test_a_kernel_leaves_the_number_of_threads() -> None:
    # Numba sets the threads of the whole process when its own start, which happens once.
    program = """
import torch
torch.set_num_threads(1)
from minigpt.conditional.layers import ReluSettings, build
layer = build(ReluSettings(hidden_size=64, neurons=96, gated=True)).eval()
with torch.no_grad():
    assert layer._kernel_for(torch.ones(1, 64)) is not None
    layer(torch.ones(1, 64))
print(torch.get_num_threads())
"""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


@pytest.mark.parametrize("kind", LARGE)
def test_bf16_weights_and_tokens(kind: str) -> None:
    torch.manual_seed(1)
    layer = build(LARGE[kind]).eval().bfloat16()
    with torch.no_grad():
        x = torch.randn(1, 260).bfloat16()
        exact = plain(copy.deepcopy(layer).double(), x.double())
        assert kernel_of(layer, x) is not None
        torch.testing.assert_close(layer(x).double(), exact, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("case", KERNELS)
def test_changes_of_the_weights_are_seen(case: str) -> None:
    layer, x = layer_of(case, dtype=torch.float32).eval(), tokens(1, dtype=torch.float32)
    with torch.no_grad():
        layer(x)
        layer.w_out.mul_(2)
        torch.testing.assert_close(layer(x), plain(layer, x))
        layer.w_out.data.mul_(2)  # nobody counts this change; optimizers' averages are put in place so
        layer.eval()
        torch.testing.assert_close(layer(x), plain(layer, x))
        layer.load_state_dict(layer_of(case, seed=3, dtype=torch.float32).state_dict())
        torch.testing.assert_close(layer(x), plain(layer, x))
        layer.double()
        torch.testing.assert_close(layer(x.double()), plain(layer, x.double()))


def test_training_and_gradients_use_no_kernel() -> None:
    layer, x = layer_of("gated relu", dtype=torch.float32), tokens(1, dtype=torch.float32)
    assert layer._kernel_for(x) is None
    out = layer.eval()(x)
    assert out.requires_grad
    layer.requires_grad_(False)
    assert layer._kernel_for(x) is not None


def test_a_prompt_is_computed_densely() -> None:
    layer = layer_of("gated relu", dtype=torch.float32).eval()
    assert kernel_of(layer, tokens(rows.PLACES["cpu"].most_tokens + 1, dtype=torch.float32)) is None


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case].kind in ("relu", "threshold")])
def test_elsewhere_no_row_is_looked_up(case: str) -> None:
    # The number of rows would be a reason to wait, and is not known here at all.
    layer, x = layer_of(case, dtype=torch.float32).to("meta").eval(), tokens(1, dtype=torch.float32).to("meta")
    assert rows.most_tokens(x) == 0 and kernel_of(layer, x) is None
    with torch.no_grad():
        assert layer(x).shape == x.shape


@pytest.mark.parametrize("case", KERNELS)
def test_without_numba_plain_torch_computes(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "is_installed", lambda _name: False)
    monkeypatch.setattr(rows, "is_installed", lambda _name: False)
    layer, x = layer_of(case, dtype=torch.float32).eval(), tokens(1, dtype=torch.float32)
    assert kernel_of(layer, x) is None
    with torch.no_grad():
        torch.testing.assert_close(layer(x), plain(layer, x))


def test_copies_prepare_their_own_kernels() -> None:
    layer, x = layer_of("trees", dtype=torch.float32).eval(), tokens(1, dtype=torch.float32)
    with torch.no_grad():
        layer(x)
        other = copy.deepcopy(layer)
        other.w_out.zero_()
        torch.testing.assert_close(other(x), plain(other, x))
        torch.testing.assert_close(layer(x), plain(layer, x))
