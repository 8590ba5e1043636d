"""The GPU's kernels give what the plain functions give, on a GPU or in Triton's interpreter (`TRITON_INTERPRET=1`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from minigpt.conditional import reference
from minigpt.conditional.kernels import plain, triton_gpu
from minigpt.conditional.kernels.layout import Visits
from minigpt.conditional.kernels.ops import kernel_for, prepare, tree_ffn
from minigpt.conditional.kernels.triton_parts import interpreted
from minigpt.conditional.kernels.weights import TreeWeights, interleave
from minigpt.errors import ConfigError
from tests.conditional.test_kernels import SHAPES, TYPES, check_path, tokens, trees


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=pytest.mark.skipif(not interpreted(), reason="needs TRITON_INTERPRET=1")),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest) -> str:
    """A place where the kernels run."""
    return str(request.param)


def moved(weights: TreeWeights, device: str, dtype: Any = None) -> TreeWeights:
    def to(value: Any) -> Any:
        return None if value is None else value.to(device)

    there = replace(
        weights, w_in=to(weights.w_in), b_in=to(weights.b_in), w_out=to(weights.w_out), w_gate=to(weights.w_gate)
    )
    return interleave(there, dtype)


def back(weights: TreeWeights) -> TreeWeights:
    def to(value: Any) -> Any:
        return None if value is None else value.cpu()

    names = ("w_in", "b_in", "w_out", "w_gate", "scales")
    return replace(weights, **{name: to(getattr(weights, name)) for name in names})


def check(weights: TreeWeights, x: torch.Tensor, form: Any) -> Visits:
    """Compare a form with the plain function along the paths that it took, and return these."""
    ready = triton_gpu.prepare(weights, form=form)
    y, visits = ready.visit(x)
    torch.testing.assert_close(ready(x), y)
    visits, here = Visits(visits.path.cpu(), visits.score.cpu(), visits.gate.cpu()), back(weights)
    check_path(here, x.cpu().float(), visits)
    w = here.plain()
    options: dict[str, Any] = {"activation": w.activation}
    exact = reference.tree_ffn_along(x.cpu().float(), w.w_in, w.b_in, w.w_gate, w.w_out, visits.path.long(), **options)
    rounding = 3e-2 if x.dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(y.cpu().float(), exact, rtol=rounding, atol=rounding)
    return visits


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["walk", "group"])
def test_both_forms_follow_the_reference(form: str, shape: Any, types: Any, device: str) -> None:
    weights = moved(trees(shape), device, types[1])
    check(weights, tokens(21, shape[2], types[0]).to(device), form)
    check(weights, tokens(1, shape[2], types[0]).to(device), form)


@pytest.mark.parametrize("activation", list(reference.ACTIVATIONS))
def test_activations_and_their_slopes(activation: str, device: str) -> None:
    for shape in SHAPES[1:3]:
        weights, x = moved(trees(shape, activation), device), tokens(9, shape[2]).to(device)
        check(weights, x, "walk")
        visits = plain.visit(weights, x)[1]
        compare_gradients(weights, x, visits)


def compare_gradients(weights: TreeWeights, x: torch.Tensor, visits: Visits) -> None:
    from minigpt.conditional.kernels import triton_backward

    toward = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).to(x)
    expected = plain.backward(weights, x, visits, toward)
    actual = triton_backward.backward(weights, x, visits, toward)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_stages_and_sorting_of_deep_trees(device: str) -> None:
    # 9 levels: stages of 5 and 4 levels, and tiles that tokens of several subtrees share.
    weights = moved(trees((2, 8, 32, True, True)), device)
    count = 70 if device == "cpu" else 3000
    visits = check(weights, tokens(count, 32).to(device), "group")
    assert visits.path[:, :, 5].unique().numel() > 8
    others = triton_gpu.prepare(weights, form="walk").visit(tokens(count, 32).to(device))[1]
    assert torch.equal(others.path.cpu(), visits.path)


def test_gradients_of_many_tokens(device: str) -> None:
    weights = moved(trees((2, 5, 40, True, True)), device)
    x = tokens(150, 40).to(device)
    compare_gradients(weights, x, plain.visit(weights, x)[1])
    none = x[:0]
    compare_gradients(weights, none, plain.visit(weights, none)[1])


def test_the_operator_takes_the_gpus_kernel_forward_and_backward(device: str) -> None:
    weights, x = moved(trees(SHAPES[2]), device), tokens(13, 96).to(device).requires_grad_()
    rows = [weights.w_in.requires_grad_(), weights.w_gate, weights.w_out]
    assert kernel_for(weights, x.dtype) == ("triton" if device == "cuda" else "numba")
    toward = tokens(13, 96).to(device)
    results = []
    for kernel in ("torch", "triton"):
        leaves = [row.detach().clone().requires_grad_() for row in rows if row is not None]
        w = replace(weights, w_in=leaves[0], w_gate=leaves[1], w_out=leaves[2])
        results.append(torch.autograd.grad(tree_ffn(x, w, kernel=kernel), [x, *leaves], toward))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_many_tokens_are_grouped_where_that_reads_less(device: str) -> None:
    weights = moved(trees((1, 4, 50, False, True)), device, torch.bfloat16)
    few, many = (torch.ones(count, 50, dtype=torch.bfloat16, device=device) for count in (8, 256))
    assert not triton_gpu.grouped(weights, few) and triton_gpu.grouped(weights, many)
    assert not triton_gpu.grouped(weights, many.float())


def test_room_for_the_output_and_wrong_tokens(device: str) -> None:
    weights = moved(trees(SHAPES[2]), device)
    ready, x = prepare(weights, kernel="triton"), tokens(4, 96).to(device)
    room = torch.empty_like(x)
    assert ready(x, room) is room
    assert ready(x[:0]).shape == (0, 96)
    assert ready(torch.full_like(x, float("nan"))).isnan().all()
    with pytest.raises(ConfigError, match="takes tokens"):
        ready(x.double())
    with pytest.raises(ConfigError, match="output must be"):
        ready(x, room[:2])
    with pytest.raises(ConfigError, match="contiguous"):
        triton_gpu.prepare(replace(weights, w_in=weights.w_in.transpose(1, 2).contiguous().transpose(1, 2)))


@pytest.mark.gpu
def test_a_captured_graph_gives_the_same() -> None:
    weights = moved(trees(SHAPES[2]), "cuda", torch.bfloat16)
    for count in (1, 300):
        ready, x = triton_gpu.prepare(weights), tokens(count, 96, torch.bfloat16).to("cuda")
        expected, room = ready(x), torch.empty_like(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            ready(x, room)
        for _ in range(3):
            room.zero_()
            graph.replay()
            assert torch.equal(room, expected)
