"""The backward pass of trees of neurons on the CPU, compiled by Numba.

Gradients of tokens are sums over a token's path. Gradients of rows are sums over a node's tokens: visits are sorted by
node first, so that each node is summed up by one thread, in the order of the tokens, whatever the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from minigpt.conditional.kernels.layout import Visits
from minigpt.conditional.kernels.numba_cpu import dot, threads_for
from minigpt.conditional.kernels.numba_words import compiled, parallel
from minigpt.conditional.kernels.plain import slopes
from minigpt.conditional.kernels.weights import TreeWeights


def backward(
    weights: TreeWeights, x: Tensor, visits: Visits, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of tokens, input weights, biases, gate weights and output weights, as fp32.

    Arguments as of `plain.backward`, on the CPU.
    """
    shape = visits.path.shape
    tokens, above = _fp32(x), _fp32(grad)
    gated = weights.w_gate is not None
    offsets = torch.arange(weights.trees, dtype=torch.int64)[None, :, None] * weights.nodes
    neurons = (visits.path.to(torch.int64) + offsets).view(shape[0], -1).numpy()
    value, by_score, by_gate = slopes(weights.activation, visits.score, visits.gate if gated else None)
    w_in, w_out = _flat(weights.w_in), _flat(weights.w_out)
    w_gate = _flat(weights.w_gate) if weights.w_gate is not None else w_in[:0]
    slope, grad_x = np.empty(neurons.shape, np.float32), np.zeros(tokens.shape, np.float32)
    flat = [part.reshape(neurons.shape).numpy() for part in (value, by_score, by_gate)]
    with threads_for(torch.get_num_threads()):
        _tokens(neurons, above, w_in, w_gate, w_out, flat[1], flat[2], slope, grad_x)
        order = np.argsort(neurons.reshape(-1), kind="stable")
        ends = np.cumsum(np.bincount(neurons.reshape(-1), minlength=w_in.shape[0]))
        g_out = _nodes(order, ends, above, flat[0].reshape(-1), neurons.shape[1])
        g_in = _nodes(order, ends, tokens, (slope * flat[1]).reshape(-1), neurons.shape[1])
        g_gate = _nodes(order, ends, tokens, (slope * flat[2]).reshape(-1), neurons.shape[1]) if gated else g_in[:0]
    g_bias = np.bincount(neurons.reshape(-1), (slope * flat[1]).reshape(-1), w_in.shape[0]).astype(np.float32)
    whole = weights.w_in.shape
    return (
        torch.from_numpy(grad_x),
        torch.from_numpy(g_in).view(whole),
        torch.from_numpy(g_bias).view(whole[:2]),
        torch.from_numpy(g_gate).view(whole) if gated else torch.empty(0),
        torch.from_numpy(g_out).view(whole),
    )


def _fp32(tensor: Tensor) -> Any:
    """Return a contiguous fp32 array of a tensor's values."""
    return tensor.detach().float().contiguous().numpy()


def _flat(rows: Tensor) -> Any:
    """Return the rows of all trees, one below the other, as fp32."""
    return _fp32(rows.reshape(-1, rows.shape[-1]))


@compiled
def _axpy(total: Any, row: Any, factor: Any) -> None:
    """Add a row times a factor."""
    for j in range(total.size):
        total[j] += factor * row[j]


@parallel
def _tokens(
    neurons: Any,
    above: Any,
    w_in: Any,
    w_gate: Any,
    w_out: Any,
    by_score: Any,
    by_gate: Any,
    slope: Any,
    grad_x: Any,
) -> None:
    """Compute the gradients of the neurons' values and of the tokens.

    Args:
        neurons: visited neurons [B, V].
        above: gradient of the output [B, H].
        w_in: input rows [K*N, H].
        w_gate: gate rows, or none.
        w_out: output rows.
        by_score: derivative of a neuron's value by its score [B, V].
        by_gate: derivative of a neuron's value by its gate [B, V].
        slope: gradient of the values [B, V], to be filled.
        grad_x: gradient of the tokens [B, H], zeros to be added to.
    """
    for token in prange(neurons.shape[0]):
        for place in range(neurons.shape[1]):
            neuron = neurons[token, place]
            slope[token, place] = dot(above[token], w_out[neuron])
            _axpy(grad_x[token], w_in[neuron], slope[token, place] * by_score[token, place])
            if w_gate.shape[0]:
                _axpy(grad_x[token], w_gate[neuron], slope[token, place] * by_gate[token, place])


@parallel
def _nodes(order: Any, ends: Any, vectors: Any, factors: Any, visited: int) -> Any:
    """Sum up, for each neuron, the vectors of its tokens times their factors.

    Args:
        order: visits sorted by neuron; visit i is of token i // visited.
        ends: where each neuron's visits end in that order.
        vectors: a vector of each token [B, H].
        factors: a factor of each visit.
        visited: the number of neurons that a token visits.
    """
    result = np.zeros((ends.size, vectors.shape[1]), np.float32)
    for neuron in prange(ends.size):
        for i in range(ends[neuron - 1] if neuron else 0, ends[neuron]):
            _axpy(result[neuron], vectors[order[i] // visited], factors[order[i]])
    return result
