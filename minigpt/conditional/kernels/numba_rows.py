"""Row-skipping layers on the CPU, compiled by Numba: one token at a time, its neurons divided among threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numba import carray, prange  # type: ignore[attr-defined]
from torch import Tensor

from minigpt.conditional.kernels.numba_cpu import activate, add_rows, dot, start_threads, threads_for
from minigpt.conditional.kernels.numba_words import compiled, floats, parallel, pointer, put
from minigpt.conditional.kernels.row_weights import RowWeights
from minigpt.conditional.kernels.weights import activation_number

_NUMPY = {torch.float32: np.float32, torch.bfloat16: np.uint16}
(W_IN, W_GATE, W_OUT, B_IN, B_OUT, W_NODE, B_NODE) = range(7)
(NEURONS, WIDTH, DEPTH, ACTIVATION, BOTH, TOP_K) = range(7, 13)
# Fewer numbers in all rows than this are not worth waking a second thread for.
_SHARED_FROM = 1 << 18


def prepare(weights: RowWeights) -> Callable[[Tensor], Tensor]:
    """Return a function of tokens [B, H] that computes a layer whose weights `rows.prepare` has checked."""
    start_threads()
    weights = halved(weights)
    *_, neurons, width = weights.w_in.shape
    both = weights.activation == "drelu"
    kind = activation_number("relu" if both else weights.activation)
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in weights.tensors]
    numbers = np.array([*addresses, neurons, width, weights.depth, kind, both, weights.top_k], dtype=np.int64)
    limits = np.array([weights.gate_above, weights.value_above], dtype=np.float32)
    rows = np.empty(0, _NUMPY[weights.w_in.dtype])
    kinds = {dtype: np.empty(0, form) for dtype, form in _NUMPY.items()}
    shared = neurons * width >= _SHARED_FROM

    def compute(x: Tensor) -> Tensor:
        x = x.contiguous()
        y, threads = torch.empty_like(x), torch.get_num_threads() if shared else 1
        arguments = (kinds[x.dtype], rows, numbers, limits, x.data_ptr(), y.data_ptr(), x.shape[0])
        if threads == 1:
            _run(*arguments, 1)
        else:
            with threads_for(threads):
                _run(*arguments, threads)
        return y

    # The function keeps the weights alive, whose addresses it knows.
    compute.weights = weights  # type: ignore[attr-defined]
    return compute


def halved(weights: RowWeights) -> RowWeights:
    """Return fp32 weights as bf16 copies where that changes no number, as in models that were saved in bf16.

    A token waits for its rows to come from memory, and these have half of the bytes.
    """
    tensors = {name: tensor.detach() for name, tensor in vars(weights).items() if isinstance(tensor, Tensor)}
    copies: dict[str, Any] = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    same = all(torch.equal(copies[name].to(tensor.dtype), tensor) for name, tensor in tensors.items())
    return replace(weights, **copies) if same else weights


@compiled
def _leaf(n: Any, rows: Any, x: Any) -> Any:
    """Return the leaf that a token reaches."""
    node, count = 0, (1 << n[DEPTH]) - 1
    w_node = carray(pointer(n[W_NODE]), (count * n[WIDTH],), rows.dtype)
    b_node = carray(pointer(n[B_NODE]), (count,), rows.dtype)
    for _ in range(n[DEPTH]):
        score = dot(x, w_node[node * n[WIDTH] : (node + 1) * n[WIDTH]]) + floats(b_node[node])
        node = 2 * node + 1 + (score >= 0)
    return node - count


@compiled
def _values(n: Any, limits: Any, rows: Any, x: Any, leaf: int, span: Any, values: Any) -> None:
    """Compute the values of neurons, zero where the gate is shut.

    Args:
        n: addresses and sizes.
        limits: thresholds of gates and of values.
        rows: array of the rows' type.
        x: the token, as floats.
        leaf: which leaf.
        span: the first neuron, and the one after the last.
        values: values of all neurons.
    """
    width, base = n[WIDTH], leaf * n[NEURONS]
    size = (base + n[NEURONS]) * width
    w_in = carray(pointer(n[W_IN]), (size,), rows.dtype)
    w_gate = carray(pointer(n[W_GATE]), (size,), rows.dtype)
    b_in = carray(pointer(n[B_IN]), (base + n[NEURONS],), rows.dtype)
    for neuron in range(span[0], span[1]):
        start, factor = (base + neuron) * width, np.float32(1)
        if n[W_GATE]:
            factor = activate(dot(x, w_gate[start : start + width]), n[ACTIVATION])
            if abs(factor) <= limits[0]:
                values[neuron] = np.float32(0)
                continue
        score = dot(x, w_in[start : start + width])
        if n[B_IN]:
            score += floats(b_in[base + neuron])
        if n[W_GATE] == 0:
            score = activate(score, n[ACTIVATION])
        elif n[BOTH]:
            score = max(score, np.float32(0))
        values[neuron] = factor * score


@compiled
def _outputs(n: Any, limits: Any, rows: Any, leaf: int, span: Any, values: Any, total: Any) -> None:
    """Add up the output rows of neurons whose value is above its threshold. Arguments as of `_values`."""
    width, base = n[WIDTH], leaf * n[NEURONS]
    w_out = carray(pointer(n[W_OUT]), ((base + n[NEURONS]) * width,), rows.dtype)
    starts, factors, count = np.empty(span[1] - span[0], np.int64), np.empty(span[1] - span[0], np.float32), 0
    for neuron in range(span[0], span[1]):
        if abs(values[neuron]) > limits[1]:
            starts[count], factors[count] = (base + neuron) * width, values[neuron]
            count += 1
    total[:] = 0
    add_rows(total, w_out, starts, factors, count)


@compiled
def _keep_largest(values: Any, count: int) -> None:
    """Set all but the values of largest size to zero; of equal ones at the border the first stay."""
    sizes = np.abs(values)
    border = np.partition(sizes, sizes.size - count)[sizes.size - count]
    left = count - (sizes > border).sum()
    for neuron in range(sizes.size):
        if sizes[neuron] == border and left > 0:
            left -= 1
        elif sizes[neuron] <= border:
            values[neuron] = 0


@parallel
def _share_values(threads: int, n: Any, limits: Any, rows: Any, x: Any, leaf: int, values: Any) -> None:
    """Divide the neurons among threads to compute their values."""
    for part in prange(threads):
        span = (n[NEURONS] * part // threads, n[NEURONS] * (part + 1) // threads)
        _values(n, limits, rows, x, leaf, span, values)


@parallel
def _share_outputs(threads: int, n: Any, limits: Any, rows: Any, leaf: int, values: Any, totals: Any) -> None:
    """Divide the neurons among threads to add up their output rows, a sum for each thread."""
    for part in prange(threads):
        span = (n[NEURONS] * part // threads, n[NEURONS] * (part + 1) // threads)
        _outputs(n, limits, rows, leaf, span, values, totals[part])


@compiled
def _neurons(n: Any, limits: Any, rows: Any, x: Any, leaf: int, values: Any, totals: Any) -> Any:
    """Return the sum over all neurons of one leaf for a token, with a thread for each row of `totals`."""
    threads, everything = totals.shape[0], (0, n[NEURONS])
    if threads > 1:
        _share_values(threads, n, limits, rows, x, leaf, values)
    else:
        _values(n, limits, rows, x, leaf, everything, values)
    if n[TOP_K]:
        _keep_largest(values, n[TOP_K])
    if threads > 1:
        _share_outputs(threads, n, limits, rows, leaf, values, totals)
    else:
        _outputs(n, limits, rows, leaf, everything, values, totals[0])
    total = totals[0]
    for part in range(1, threads):
        total += totals[part]
    return total


@compiled
def _run(tokens: Any, rows: Any, n: Any, limits: Any, x: int, y: int, count: int, threads: int) -> None:
    """Compute the layer for tokens at one address into another, after arrays that carry the types."""
    width = n[WIDTH]
    xs = carray(pointer(x), (count * width,), tokens.dtype)
    ys = carray(pointer(y), (count * width,), tokens.dtype)
    b_out = carray(pointer(n[B_OUT]), ((1 << n[DEPTH]) * width,), rows.dtype)
    token, values = np.empty(width, np.float32), np.empty(n[NEURONS], np.float32)
    totals = np.empty((threads, width), np.float32)
    for place in range(count):
        for j in range(width):
            token[j] = floats(xs[place * width + j])
        leaf = _leaf(n, rows, token) if n[DEPTH] else 0
        total = _neurons(n, limits, rows, token, leaf, values, totals)
        if n[B_OUT]:
            for j in range(width):
                total[j] += floats(b_out[leaf * width + j])
        put(ys[place * width : (place + 1) * width], total)
