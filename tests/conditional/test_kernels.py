"""Every kernel of trees gives what the plain functions give: outputs, paths, gradients, for every type and grouping."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from minigpt.conditional import reference
from minigpt.conditional.kernels import plain
from minigpt.conditional.kernels.layout import GROUP_FROM, Visits, numbers_of
from minigpt.conditional.kernels.ops import kernel_for, prepare, tree_ffn
from minigpt.conditional.kernels.weights import TreeWeights, interleave
from minigpt.errors import ConfigError, UnknownName

pytest.importorskip("numba")

# Trees, depth, width, gate, bias: one neuron; a width that is no multiple of a vector; several trees; a wide layer
# of which a block takes few tokens.
SHAPES = [(1, 0, 7, False, True), (1, 4, 50, False, True), (3, 2, 96, True, False), (2, 3, 2053, True, True)]
TYPES = [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16)]
TYPES += [(torch.float32, torch.int8), (torch.bfloat16, torch.int8)]


def lack_of_cpp() -> str | None:
    from minigpt.conditional.kernels import cpp_cpu

    return cpp_cpu.missing()


LACK = lack_of_cpp()
COMPILED = ["numba", pytest.param("cpp", marks=pytest.mark.skipif(LACK is not None, reason=f"needs {LACK}"))]


def module_of(kernel: str) -> Any:
    from minigpt.conditional.kernels import cpp_cpu, numba_cpu

    return {"numba": numba_cpu, "cpp": cpp_cpu}[kernel]


def trees(shape: tuple[int, int, int, bool, bool], activation: str = "gelu", dtype: Any = torch.float32) -> TreeWeights:
    count, depth, width, gated, biased = shape
    generator = torch.Generator().manual_seed(count + depth + width)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=dtype)

    rows = (count, 2 ** (depth + 1) - 1, width)
    return TreeWeights(
        w_in=draw(*rows) / width**0.5,
        w_out=draw(*rows) / (count * (depth + 1)) ** 0.5,
        depth=depth,
        activation=activation,
        b_in=draw(*rows[:2]) / 4 if biased else None,
        w_gate=draw(*rows) / width**0.5 if gated else None,
    )


def tokens(count: int, width: int, dtype: Any = torch.float32) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count)).to(dtype)


def along(weights: TreeWeights, x: torch.Tensor, visits: Visits) -> torch.Tensor:
    """The plain output on the path that a kernel took, with the values that the kernel's rows stand for."""
    w = weights.plain()
    options: dict[str, Any] = {"activation": w.activation}
    return reference.tree_ffn_along(x.float(), w.w_in, w.b_in, w.w_gate, w.w_out, visits.path.long(), **options)


def check_path(weights: TreeWeights, x: torch.Tensor, visits: Visits) -> None:
    """Each step goes where the plain score says, unless that score is too near to zero to tell."""
    w = weights.plain()
    path, decisions = visits.path.long(), visits.gate if weights.w_gate is not None else visits.score
    assert (path[..., 0] == 0).all()
    assert torch.equal(path[..., 1:], 2 * path[..., :-1] + 1 + (decisions[..., :-1] > 0))
    rows = w.w_in if w.w_gate is None else w.w_gate
    picked = torch.stack([rows[tree][path[:, tree]] for tree in range(w.trees)], dim=1)
    exact = torch.einsum("bh,bklh->bkl", x.double(), picked.double())
    if w.w_gate is None and w.b_in is not None:
        exact += torch.stack([w.b_in[tree][path[:, tree]] for tree in range(w.trees)], dim=1)
    torch.testing.assert_close(decisions.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", COMPILED)
def test_compiled_kernels_follow_the_reference(kernel: str, shape: Any, types: Any) -> None:
    weights = interleave(trees(shape), types[1])
    x = tokens(21, shape[2], types[0])
    rounding = 2e-2 if types[0] == torch.bfloat16 else 1e-5
    for threads, group in ((1, 0), (1, 1), (2, 0), (2, 1)):
        ready = module_of(kernel).prepare(weights, threads=threads, group=group, cache=4 * shape[2] * 20)
        y, visits = ready.visit(x)
        check_path(weights, x, visits)
        torch.testing.assert_close(y.float(), along(weights, x, visits), rtol=rounding, atol=rounding)
        assert torch.equal(ready(x), y)


@pytest.mark.parametrize("activation", list(reference.ACTIVATIONS))
@pytest.mark.parametrize("kernel", ["torch", *COMPILED])
def test_kernels_know_every_activation(kernel: str, activation: str) -> None:
    for shape in SHAPES[1:3]:
        weights, x = trees(shape, activation), tokens(5, shape[2])
        w = weights
        plainly = reference.tree_ffn(x, w.w_in, w.b_in, w.w_gate, w.w_out, depth=w.depth, activation=activation)
        torch.testing.assert_close(tree_ffn(x, weights, kernel=kernel), plainly, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(prepare(weights, kernel=kernel)(x), plainly, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", COMPILED)
def test_grouping_and_threads_change_nothing_but_rounding(kernel: str) -> None:
    weights = interleave(trees((2, 6, 64, False, True)))
    x = tokens(600, 64)
    plainly, visits = module_of(kernel).prepare(weights, threads=1, group=0).visit(x)
    assert visits.path[:, :, -1].unique().numel() > 50  # tokens do spread over the leaves
    for threads in (1, 2, 3):
        for stage in (1, 2000, 9000):  # bytes: a level, two or more levels a stage
            y, others = module_of(kernel).prepare(weights, threads=threads, group=1, cache=stage).visit(x)
            assert torch.equal(others.path, visits.path)
            torch.testing.assert_close(y, plainly, rtol=1e-5, atol=1e-6)


def test_single_and_large_trees_group_tokens() -> None:
    def group(count: int, width: int) -> int:
        rows = torch.empty(1, 1, width).expand(count, 7, width)  # memory of one row
        return int(numbers_of(TreeWeights(rows, rows, 2, "relu"))[-1])

    assert (group(1, 16), group(2, 16), group(2, 1 << 20)) == (GROUP_FROM, 0, GROUP_FROM)


@pytest.mark.parametrize("kernel", COMPILED)
def test_edges(kernel: str) -> None:
    weights = interleave(trees(SHAPES[2]))
    ready = module_of(kernel).prepare(weights, threads=2)
    assert ready(tokens(0, 96)).shape == (0, 96)
    many = tokens(4, 192)[:, ::2]  # not contiguous
    torch.testing.assert_close(ready(many), ready(many.contiguous()))
    room = torch.empty(4, 96)
    assert ready(many, room) is room
    one = tokens(1, 96)  # fewer tokens than threads: threads may share the trees
    torch.testing.assert_close(ready(one), module_of(kernel).prepare(weights, threads=1)(one), rtol=1e-5, atol=1e-6)
    broken = torch.full((1, 96), float("nan"))
    assert ready(broken).isnan().all()
    for bad in (tokens(4, 95), tokens(4, 96).double(), tokens(4, 96).bfloat16()):
        with pytest.raises(ConfigError, match="takes tokens"):
            ready(bad)
    with pytest.raises(ConfigError, match="output must be"):
        ready(one, room)


@pytest.mark.parametrize("kernel", COMPILED)
def test_weights_may_lie_anywhere(kernel: str) -> None:
    weights = trees(SHAPES[2])
    x = tokens(9, 96)
    apart = module_of(kernel).prepare(weights)(x)
    assert torch.equal(module_of(kernel).prepare(interleave(weights))(x), apart)
    turned = replace(weights, w_in=weights.w_in.transpose(1, 2).contiguous().transpose(1, 2))
    with pytest.raises(ConfigError, match="contiguous"):
        module_of(kernel).prepare(turned)
    torch.testing.assert_close(tree_ffn(x, turned, kernel=kernel), apart)


def test_rows_of_a_neuron_lie_side_by_side() -> None:
    weights = interleave(trees(SHAPES[2]))
    assert weights.w_gate is not None
    starts = [rows[1, 3].data_ptr() for rows in (weights.w_in, weights.w_gate, weights.w_out)]
    assert [start - starts[0] for start in starts] == [0, 4 * 96, 8 * 96]
    assert weights.bytes_read() == 3 * 3 * 3 * 96 * 4  # trees, levels, rows, width, bytes


def test_int8_rows_are_within_half_a_step() -> None:
    weights = trees(SHAPES[2])
    weights.w_out[0, 0] = 0
    small, back = interleave(weights, torch.int8), interleave(weights, torch.int8).plain()
    assert small.scales is not None and small.w_in.dtype == torch.int8
    for place, name in enumerate(("w_in", "w_gate", "w_out")):
        step = small.scales[place][..., None]
        assert ((getattr(back, name) - getattr(weights, name)).abs() <= step * 0.5001).all()
    with pytest.raises(ConfigError, match="rows of"):
        interleave(weights, torch.float64)


@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[2]])
def test_the_operator_has_the_gradients_of_the_reference(shape: Any) -> None:
    for kernel in ("torch", "numba"):
        weights, x = trees(shape), tokens(13, shape[2]).requires_grad_()
        leaves = [
            each.requires_grad_()
            for each in (weights.w_in, weights.b_in, weights.w_gate, weights.w_out)
            if each is not None
        ]
        options: dict[str, Any] = {"depth": weights.depth, "activation": "gelu"}
        w = weights
        plainly = reference.tree_ffn(x, w.w_in, w.b_in, w.w_gate, w.w_out, **options)
        toward = torch.randn(13, shape[2], generator=torch.Generator().manual_seed(5))
        expected = torch.autograd.grad(plainly, [x, *leaves], toward)
        actual = torch.autograd.grad(tree_ffn(x, weights, kernel=kernel), [x, *leaves], toward)
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", list(reference.ACTIVATIONS))
@pytest.mark.parametrize("gated", [False, True])
def test_gradients_agree_with_differences(gated: bool, activation: str) -> None:
    weights = trees((2, 2, 6, gated, True), activation, dtype=torch.float64)
    x = tokens(3, 6, torch.float64).requires_grad_()
    leaves = [each for each in (weights.w_in, weights.w_out, weights.b_in, weights.w_gate) if each is not None]
    names = ("w_in", "w_out", "b_in", "w_gate")

    def layer(x: torch.Tensor, *rows: torch.Tensor) -> torch.Tensor:
        return tree_ffn(x, replace(weights, **dict(zip(names, rows, strict=False))))

    assert kernel_for(weights, torch.float64) == "torch"
    assert torch.autograd.gradcheck(layer, (x, *(each.requires_grad_() for each in leaves)), eps=1e-7)


def test_threads_do_not_change_gradients() -> None:
    from minigpt.conditional.kernels import numba_backward

    weights, x = trees((1, 5, 32, False, True)), tokens(200, 32)
    _, visits = plain.visit(weights, x)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(numba_backward.backward(weights, x, visits, x.flip(0)))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_bf16_weights_get_bf16_gradients() -> None:
    weights = trees(SHAPES[2])
    weights = replace(
        weights, w_in=weights.w_in.bfloat16().requires_grad_(), w_gate=None, w_out=weights.w_out.bfloat16()
    )
    x = tokens(4, 96, torch.bfloat16)
    tree_ffn(x, weights).float().sum().backward()
    assert weights.w_in.grad is not None and weights.w_in.grad.dtype == torch.bfloat16


def test_int8_rows_refuse_to_be_trained() -> None:
    x = tokens(4, 96).requires_grad_()
    y = tree_ffn(x, interleave(trees(SHAPES[2]), torch.int8))
    with pytest.raises(ConfigError, match="train fp32"):
        y.sum().backward()


def test_the_operator_passes_torchs_own_checks() -> None:
    weights, x = trees(SHAPES[2]), tokens(4, 96).requires_grad_()
    rows = (weights.w_in, weights.b_in, weights.w_gate, weights.w_out, None)
    torch.library.opcheck(torch.ops.minigpt.tree_ffn.default, (x, *rows, weights.depth, "gelu", "torch"))
    torch.library.opcheck(torch.ops.minigpt.tree_ffn.default, (x, *rows, weights.depth, "gelu", "numba"))


def test_export_keeps_the_operator() -> None:
    weights = trees(SHAPES[1])

    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return tree_ffn(x, weights) + x

    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Layer(), (tokens(4, 50),), dynamic_shapes={"x": {0: batch}})
    assert any("tree_ffn" in str(node.target) for node in program.graph.nodes)
    x = tokens(7, 50)
    torch.testing.assert_close(program.module()(x), tree_ffn(x, weights) + x)


def test_compiled_code_is_one_graph_forward_and_backward() -> None:
    weights = trees(SHAPES[1])

    def layer(x: torch.Tensor) -> torch.Tensor:
        return tree_ffn(2 * x, weights).relu()

    x = tokens(4, 50).requires_grad_()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    (one,) = torch.autograd.grad(compiled(x).sum(), x)
    (other,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(one, other)


def test_names_and_shapes_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = trees(SHAPES[1])
    with pytest.raises(UnknownName, match="kernel"):
        prepare(weights, kernel="fortran")
    with pytest.raises(UnknownName, match="activation"):
        trees(SHAPES[1], "swish")
    with pytest.raises(ConfigError, match=r"\[trees, 15, width\]"):
        replace(weights, depth=3)
    with pytest.raises(ConfigError, match="does not take"):
        kernel_for(weights, torch.float64, "numba")
    monkeypatch.setattr("minigpt.conditional.kernels.ops.is_installed", lambda _name: False)
    assert kernel_for(weights, torch.float32) == "torch"
    with pytest.raises(ConfigError, match=r"minigpt\[conditional\]"):
        prepare(weights, kernel="numba")


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from minigpt.conditional.kernels import cpp_cpu

    monkeypatch.setattr("shutil.which", lambda _name: None)
    cpp_cpu.library.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"without a C\+\+ compiler"):
            prepare(trees(SHAPES[1]), kernel="cpp")
    finally:
        cpp_cpu.library.cache_clear()


def test_importing_numba_leaves_torchs_threads_alone() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        prepare(trees(SHAPES[1]), kernel="numba", threads=2)(tokens(8, 50))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
