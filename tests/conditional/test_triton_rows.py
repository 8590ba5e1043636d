"""The GPU's kernel that skips rows gives what the plain references give, on a GPU or in Triton's interpreter."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from minigpt.conditional.base import ConditionalFFN
from minigpt.conditional.kernels import rows, triton_rows
from minigpt.conditional.kernels.row_weights import RowWeights
from minigpt.conditional.kernels.triton_parts import interpreted
from minigpt.conditional.layers import AnySettings, ReluSettings, ThresholdSettings, build
from minigpt.conditional.reference import ACTIVATIONS
from tests.support.conditional import CASES, layer_of, plain

# Some neurons more than a multiple of a block, and rows that are longer than a piece but no multiple of it.
NEURONS, HIDDEN = 45, 700
SIZES: dict[str, Any] = {"hidden_size": HIDDEN, "neurons": NEURONS}
LARGE: dict[str, AnySettings] = {
    "relu": ReluSettings(**SIZES, input_bias=True, output_bias=True),
    "gated relu": ReluSettings(**SIZES, gated=True),
    "drelu": ReluSettings(**SIZES, gated=True, activation="drelu", input_bias=True, output_bias=True),
    "threshold": ThresholdSettings(**SIZES, gated=True, activation="silu", t_act=0.1, input_bias=True),
    "values": ThresholdSettings(**SIZES, activation="gelu", t_out=0.05, output_bias=True),
    "both": ThresholdSettings(**SIZES, gated=True, activation="gelu_pytorch_tanh", t_act=0.05, t_out=0.01),
    "all": ThresholdSettings(**SIZES, gated=True, activation="silu"),
    "nothing": ThresholdSettings(**SIZES, gated=True, activation="silu", t_act=1e9, output_bias=True),
    "top-k": ReluSettings(**SIZES, gated=True, activation="silu", top_k=13, output_bias=True),
    "top-k of gates": ReluSettings(**SIZES, gated=True, top_k=30),
    "top-k of all": ReluSettings(**SIZES, activation="gelu", top_k=NEURONS, input_bias=True),
}
# The kernel computes any number of tokens, though dense products are faster with more than one.
GPU = replace(rows.PLACES["cuda"], most_tokens=4)
SMALL = [
    case for case, settings in CASES.items() if settings.kind in ("relu", "threshold") and case != "gated threshold"
]


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=pytest.mark.skipif(not interpreted(), reason="needs TRITON_INTERPRET=1")),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest) -> str:
    """A place where the kernel runs."""
    return str(request.param)


def compute(layer: ConditionalFFN, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The layer by the GPU's kernel, wherever it is."""
    monkeypatch.setattr(rows, "PLACES", {x.device.type: GPU})
    with torch.no_grad():
        ready = layer.eval()._kernel_for(x)
        assert ready is not None
        return ready(x)


def check(layer: ConditionalFFN, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the kernel with the plain reference in double precision."""
    y = compute(layer, x, monkeypatch)
    with torch.no_grad():
        exact = plain(copy.deepcopy(layer).double(), x.double())
    assert y.dtype == x.dtype
    rounding = 2e-2 if torch.bfloat16 in (x.dtype, layer.w_in.dtype) else 1e-4
    torch.testing.assert_close(y.double(), exact, rtol=rounding, atol=rounding)


def large(case: str, dtype: torch.dtype, device: str) -> ConditionalFFN:
    torch.manual_seed(3)
    return build(LARGE[case]).to(device, dtype)


def tokens(count: int, dtype: torch.dtype, device: str) -> Tensor:
    return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(count)).to(device, dtype)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("types", [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16)])
@pytest.mark.parametrize("case", LARGE)
def test_the_kernel_is_the_reference(
    case: str, types: Any, count: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(large(case, types[1], device), tokens(count, types[0], device), monkeypatch)


@pytest.mark.parametrize("case", ["threshold", "top-k"])
def test_tokens_of_more_bits_than_the_rows(case: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(large(case, torch.bfloat16, device), tokens(2, torch.float32, device), monkeypatch)


@pytest.mark.parametrize("case", [case for case in SMALL if case != "threshold"])
def test_layers_that_are_smaller_than_a_block(case: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of(case, dtype=torch.float32).to(device)
    for seed in range(5):
        x = torch.randn(1, layer.settings.hidden_size, generator=torch.Generator().manual_seed(seed))
        check(layer, x.to(device), monkeypatch)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_every_activation(activation: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    layer = build(ThresholdSettings(**SIZES, gated=True, activation=activation, t_act=0.02)).to(device)
    check(layer, tokens(1, torch.float32, device), monkeypatch)


@pytest.mark.parametrize("count", [1, 2, 13, 299, 300])
def test_as_many_values_stay_as_are_to(count: int, device: str) -> None:
    generator = torch.Generator().manual_seed(count)
    for values in (torch.randn(2, 300, generator=generator), torch.randint(-3, 4, (2, 300), generator=generator) / 2):
        kept = values.to(device)
        triton_rows._keep_largest[(2,)](kept, COUNT=count, NEURONS=300, ROOM=512, num_warps=4)
        for row, left in zip(values, kept.cpu(), strict=True):
            # In the order of size, and of equal ones the first.
            places = row.abs().sort(descending=True, stable=True).indices[:count]
            assert torch.equal(left, torch.zeros(300).scatter(0, places, row[places]))


def test_rows_that_do_not_count_are_not_used(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows behind a shut gate may hold anything."""
    layer, x = large("gated relu", torch.float32, device), tokens(1, torch.float32, device)
    assert layer.w_gate is not None
    exact = compute(layer, x, monkeypatch)
    with torch.no_grad():
        shut = (layer.w_gate @ x[0]) <= 0
        assert 5 < int(shut.sum()) < NEURONS - 5
        layer.w_in[shut], layer.w_out[shut] = float("nan"), float("nan")
    assert torch.equal(compute(layer, x, monkeypatch), exact)


def test_what_is_no_number_stays_visible(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.full((1, HIDDEN), float("nan"), device=device)
    for case in ("threshold", "gated relu", "values"):
        assert compute(large(case, torch.float32, device), x, monkeypatch).isnan().all()


def test_changes_of_the_weights_are_seen(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = large("threshold", torch.float32, device), tokens(1, torch.float32, device)
    check(layer, x, monkeypatch)
    with torch.no_grad():
        layer.w_out.mul_(-2)
    check(layer, x, monkeypatch)


def test_the_same_call_gives_the_same_bits(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for case in ("threshold", "top-k"):
        layer, x = large(case, torch.bfloat16, device), tokens(3, torch.bfloat16, device)
        first = compute(layer, x, monkeypatch)
        assert all(torch.equal(compute(layer, x, monkeypatch), first) for _ in range(3))


@pytest.mark.parametrize("case", ["threshold", "gated relu", "top-k"])
def test_several_sequences_are_computed_densely(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PLACES", {"cpu": rows.PLACES["cuda"]})
    layer = large(case, torch.float32, "cpu").eval()
    with torch.no_grad():
        assert layer._kernel_for(tokens(1, torch.float32, "cpu")) is not None
        x = tokens(2, torch.float32, "cpu")
        assert layer._kernel_for(x) is None
        torch.testing.assert_close(layer(x), plain(copy.deepcopy(layer).double(), x.double()).float())


def test_leaves_have_no_such_kernel(device: str) -> None:
    leaves = torch.ones(2, 4, HIDDEN, device=device)
    node = torch.ones(1, HIDDEN, device=device)
    weights = RowWeights(w_in=leaves, w_out=leaves, activation="relu", w_node=node, b_node=node[:, 0], depth=1)
    assert triton_rows.prepare(weights) is None


def test_programs_are_many_and_their_rows_fit_into_registers() -> None:
    shapes = [(10, 6), (1536, 576), (8192, 2048), (14336, 4096), (65536, 8192)]
    launches = [triton_rows.launch_of(*shape) for shape in shapes]
    assert [launch.block for launch in launches] == [4, 4, 16, 16, 32]
    assert [launch.warps for launch in launches] == [4, 4, 4, 8, 16]
    assert [launch.piece for launch in launches] == [8, 512, 512, 512, 512]


@pytest.mark.gpu
@pytest.mark.parametrize("case", LARGE)
def test_a_captured_graph_gives_the_same(case: str) -> None:
    layer = large(case, torch.bfloat16, "cuda").eval()
    with torch.no_grad():
        x, other = tokens(1, torch.bfloat16, "cuda"), tokens(2, torch.bfloat16, "cuda")[1:]
        expected, changed = layer(x).clone(), layer(other).clone()
        torch.cuda.synchronize()
        graph, room = torch.cuda.CUDAGraph(), x.clone()
        with torch.cuda.graph(graph):
            y = layer(room)
        for value, wanted in ((x, expected), (other, changed), (x, expected)):
            room.copy_(value)
            graph.replay()
            assert torch.equal(y, wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("case", LARGE)
def test_without_triton_the_gpu_computes_densely_in_a_graph(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "is_installed", lambda _name: False)
    layer, x = large(case, torch.float32, "cuda").eval(), tokens(1, torch.float32, "cuda")
    with torch.no_grad():
        assert layer._kernel_for(x) is None
        expected = plain(copy.deepcopy(layer).double(), x.double()).float()
        layer(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(x)
        graph.replay()
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
