"""The torch operator of trees of neurons: chooses a kernel, and works under autograd, torch.compile and export."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from minigpt.conditional.kernels import plain
from minigpt.conditional.kernels.layout import Visits, token_types
from minigpt.conditional.kernels.weights import ROWS, TreeWeights, interleave
from minigpt.errors import ConfigError, UnknownName

# Kernels that need a package: the extra of minigpt that has it, or the package itself, and the package's name.
PACKAGES = {"numba": ("minigpt[conditional]", "Numba"), "triton": ("triton", "Triton")}
KERNELS = ("auto", "numba", "cpp", "triton", "torch")


def tree_ffn(x: Tensor, weights: TreeWeights, *, kernel: str = "auto") -> Tensor:
    """Compute K parallel trees of neurons: the same as `reference.tree_ffn`, by a kernel.

    It can be differentiated, compiled and exported. Without any of that, `prepare` has less to do for each call.

    Args:
        x: tokens [..., H].
        weights: the trees; gradients need weights without scales.
        kernel: one of `KERNELS`; "auto" takes Numba's on the CPU and Triton's on a GPU where they are installed, else
            plain torch.
    """
    w = weights
    rows = (w.w_in, w.b_in, w.w_gate, w.w_out, w.scales)
    y = torch.ops.minigpt.tree_ffn(x.reshape(-1, w.width), *rows, w.depth, w.activation, kernel)[0]
    return y.view(x.shape)  # type: ignore[no-any-return]


def prepare(
    weights: TreeWeights, *, kernel: str = "auto", dtype: torch.dtype | None = None, threads: int | None = None
) -> Callable[[Tensor], Tensor]:
    """Return a function of tokens [B, H] that computes the layer with as little as possible between call and kernel.

    Args:
        weights: the trees; they are copied, with the rows of a neuron side by side.
        kernel: one of `KERNELS`.
        dtype: type of the rows, which stays as it is by default.
        threads: the number of threads, or None for torch's.

    Raises:
        ConfigError: the kernel cannot run here, or does not read such rows.
    """
    weights = weights if weights.scales is not None else interleave(weights, dtype)
    name = kernel_for(weights, token_types(weights)[-1], kernel)
    if name == "torch":
        return lambda x: plain.visit(weights, x)[0]
    return _compiled(name)(weights, threads=threads)  # type: ignore[no-any-return]


def kernel_for(weights: TreeWeights, tokens: torch.dtype, kernel: str = "auto") -> str:
    """Return the name of the kernel that computes tokens of a type: the one that is named, or the best there is.

    Raises:
        UnknownName: there is no such kernel.
        ConfigError: the kernel that is named does not take such tokens or rows.
    """
    if kernel not in KERNELS:
        raise UnknownName("kernel", kernel, KERNELS)
    device, rows = weights.w_in.device.type, weights.w_in.dtype
    best = {"cpu": "numba", "cuda": "triton"}.get(device, "torch")
    fits = rows in ROWS and tokens in token_types(weights)
    if kernel == "auto":
        return best if fits and is_installed(best) else "torch"
    if kernel in PACKAGES and not is_installed(kernel):
        extra, package = PACKAGES[kernel]
        raise ConfigError(f"The {package} kernel needs {package}; install {extra}, or use the torch kernel.")
    if kernel != "torch" and not (fits and _runs_on(kernel, device)):
        raise ConfigError(f"The {kernel} kernel does not take {tokens} tokens and {rows} rows on {device}; use torch.")
    return kernel


def _runs_on(kernel: str, device: str) -> bool:
    """Say whether a kernel runs on a type of device."""
    if kernel != "triton":
        return device == "cpu"
    from minigpt.conditional.kernels import triton_gpu

    return triton_gpu.runs_on(device)


@cache
def is_installed(kernel: str) -> bool:
    """Say whether the package that a kernel needs is installed; plain torch needs none."""
    return kernel not in PACKAGES or find_spec(kernel) is not None


def _compiled(name: str) -> Any:
    """Return the `prepare` of a compiled kernel."""
    if name == "triton":
        from minigpt.conditional.kernels import triton_gpu

        return triton_gpu.prepare
    if name == "cpp":
        from minigpt.conditional.kernels import cpp_cpu

        return cpp_cpu.prepare
    from minigpt.conditional.kernels import numba_cpu

    return numba_cpu.prepare


@torch.library.custom_op(
    "minigpt::tree_ffn",
    mutates_args=(),
    schema="(Tensor x, Tensor w_in, Tensor? b_in, Tensor? w_gate, Tensor w_out, Tensor? scales, int depth, "
    "str activation, str kernel) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _forward(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor | None,
    w_gate: Tensor | None,
    w_out: Tensor,
    scales: Tensor | None,
    depth: int,
    activation: str,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the output with the path, scores and gates of each token."""
    weights = TreeWeights(w_in, w_out, depth, activation, b_in, w_gate, scales)
    name = kernel_for(weights, x.dtype, kernel)
    if name == "torch":
        y, visits = plain.visit(weights, x)
    else:
        y, visits = _compiled(name)(_readable(weights)).visit(x)
    return y, visits.path, visits.score, visits.gate


@_forward.register_fake
def _(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor | None,
    w_gate: Tensor | None,
    w_out: Tensor,
    scales: Tensor | None,
    depth: int,
    activation: str,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return empty outputs of the right shapes and types."""
    shape = (x.shape[0], w_in.shape[0], depth + 1)
    wide = torch.promote_types(x.dtype, torch.float32)
    score = x.new_empty(shape, dtype=wide)
    gate = score.new_empty((0,) if w_gate is None else shape)
    return x.new_empty(x.shape), x.new_empty(shape, dtype=torch.int32), score, gate


@torch.library.custom_op(
    "minigpt::tree_ffn_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor w_in, Tensor? b_in, Tensor? w_gate, Tensor w_out, Tensor path, "
    "Tensor score, Tensor gate, int depth, str activation, str kernel) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(
    grad: Tensor,
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor | None,
    w_gate: Tensor | None,
    w_out: Tensor,
    path: Tensor,
    score: Tensor,
    gate: Tensor,
    depth: int,
    activation: str,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of tokens, input weights, biases, gate weights and output weights, in their types."""
    weights = TreeWeights(w_in, w_out, depth, activation, b_in, w_gate)
    visits = Visits(path, score, gate)
    name = kernel_for(weights, x.dtype, kernel)
    if name == "triton":
        from minigpt.conditional.kernels import triton_backward

        grads = triton_backward.backward(_readable(weights), x, visits, grad)
    elif name == "torch" or not is_installed("numba"):
        grads = plain.backward(weights, x, visits, grad)
    else:
        from minigpt.conditional.kernels import numba_backward

        grads = numba_backward.backward(weights, x, visits, grad)
    types = (x.dtype, w_in.dtype, (w_in if b_in is None else b_in).dtype, w_in.dtype, w_out.dtype)
    g_x, g_in, g_bias, g_gate, g_out = (part.to(dtype) for part, dtype in zip(grads, types, strict=True))
    return g_x, g_in, g_bias, g_gate, g_out


@_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor | None,
    w_gate: Tensor | None,
    w_out: Tensor,
    path: Tensor,
    score: Tensor,
    gate: Tensor,
    depth: int,
    activation: str,
    kernel: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return empty gradients of the right shapes and types."""
    g_bias = w_in.new_empty(w_in.shape[:2], dtype=(w_in if b_in is None else b_in).dtype)
    g_gate = w_in.new_empty((0,) if w_gate is None else w_in.shape)
    return x.new_empty(x.shape), w_in.new_empty(w_in.shape), g_bias, g_gate, w_out.new_empty(w_out.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what the backward pass needs; of the outputs only the first can be differentiated."""
    x, w_in, b_in, w_gate, w_out, scales, *options = inputs
    ctx.save_for_backward(x, w_in, b_in, w_gate, w_out, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.options, ctx.scaled = options, scales is not None


def _differentiate(context: Any, grad: Tensor, *_others: Any) -> tuple[Tensor | None, ...]:
    """Return one gradient for each argument of the operator.

    Raises:
        ConfigError: the rows are int8.
    """
    if context.scaled:
        raise ConfigError("Trees with int8 rows cannot be trained; train fp32 or bf16 rows.")
    _x, _w_in, b_in, w_gate, *_rest = context.saved_tensors
    grads = torch.ops.minigpt.tree_ffn_backward(grad.contiguous(), *context.saved_tensors, *context.options)
    g_x, g_in, g_bias, g_gate, g_out = grads
    bias, gate = None if b_in is None else g_bias, None if w_gate is None else g_gate
    return g_x, g_in, bias, gate, g_out, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


def _readable(weights: TreeWeights) -> TreeWeights:
    """Return the weights with contiguous rows and an fp32 bias, copied only where they are not so."""

    def rows(matrix: Tensor | None) -> Tensor | None:
        return matrix if matrix is None or matrix.stride(2) == 1 else matrix.contiguous()

    w_in, w_out = rows(weights.w_in), rows(weights.w_out)
    assert w_in is not None and w_out is not None
    bias = None if weights.b_in is None else weights.b_in.float().contiguous()
    scales = None if weights.scales is None else weights.scales.float().contiguous()
    return TreeWeights(w_in, w_out, weights.depth, weights.activation, bias, rows(weights.w_gate), scales)
