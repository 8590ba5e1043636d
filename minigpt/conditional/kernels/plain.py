"""Trees of neurons in plain torch, a level at a time: for any device and type, and the measure of what kernels save."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from minigpt.conditional.kernels.layout import Visits
from minigpt.conditional.kernels.weights import TreeWeights
from minigpt.conditional.reference import activation_of

# Derivatives of the activations. An operator runs below autograd, which cannot be asked there.
_SLOPES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": lambda s: torch.ops.aten.gelu_backward(torch.ones_like(s), s),
    "gelu_pytorch_tanh": lambda s: torch.ops.aten.gelu_backward(torch.ones_like(s), s, approximate="tanh"),
    "relu": lambda s: (s > 0).to(s.dtype),
    "silu": lambda s: torch.ops.aten.silu_backward(torch.ones_like(s), s),
}
# Most numbers of gathered rows that lie in memory at once.
_GATHERED = 1 << 24


def visit(weights: TreeWeights, x: Tensor) -> tuple[Tensor, Visits]:
    """Compute the layer for tokens [B, H], and return the paths with their scores and gates.

    Scores are summed in fp32, or in fp64 for fp64 tokens.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    shape = (x.shape[0], weights.trees, weights.levels)
    path = torch.empty(shape, dtype=torch.int32, device=x.device)
    score = torch.empty(shape, dtype=wide, device=x.device)
    gate = torch.empty_like(score) if weights.w_gate is not None else score.new_empty(0)
    visits, act = Visits(path, score, gate), activation_of(weights.activation)
    y = torch.empty_like(x)
    for part in _parts(x.shape[0], weights.width):
        tokens = x[part].to(wide)
        total = torch.zeros_like(tokens)
        for tree in range(weights.trees):
            _route(weights, tokens, tree, part, visits)
            for level in range(weights.levels):
                value = score[part, tree, level]
                value = act(value) if weights.w_gate is None else act(gate[part, tree, level]) * value
                nodes = path[part, tree, level].long()
                total += value[:, None] * _rows(weights.w_out, _scale(weights, 2), tree, nodes, wide)
        y[part] = total.to(x.dtype)
    return y, visits


def _route(weights: TreeWeights, tokens: Tensor, tree: int, part: slice, visits: Visits) -> None:
    """Take tokens through one tree, and write down where they went."""
    nodes = torch.zeros(tokens.shape[0], dtype=torch.long, device=tokens.device)
    for level in range(weights.levels):
        visits.path[part, tree, level] = nodes.int()
        decision = (tokens * _rows(weights.w_in, _scale(weights, 0), tree, nodes, tokens.dtype)).sum(-1)
        if weights.b_in is not None:
            decision = decision + weights.b_in[tree].to(tokens.dtype)[nodes]
        visits.score[part, tree, level] = decision
        if weights.w_gate is not None:
            decision = (tokens * _rows(weights.w_gate, _scale(weights, 1), tree, nodes, tokens.dtype)).sum(-1)
            visits.gate[part, tree, level] = decision
        nodes = 2 * nodes + 1 + (decision > 0)


def backward(
    weights: TreeWeights, x: Tensor, visits: Visits, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of tokens, input weights, biases, gate weights and output weights.

    A token's path is constant almost everywhere, so only the visited neurons have gradients (2311.10770).

    Args:
        weights: trees without scales.
        x: tokens [B, H].
        visits: what the forward pass left.
        grad: gradient of the output [B, H].
    """
    wide = visits.score.dtype
    kinds = (weights.w_in, weights.w_gate, weights.w_out)
    grads = [x.new_zeros((0,) if rows is None else rows.shape, dtype=wide) for rows in kinds]
    grad_bias = torch.zeros(weights.w_in.shape[:2], dtype=wide, device=x.device)
    grad_x = torch.zeros_like(x, dtype=wide)
    for part in _parts(x.shape[0], weights.width):
        tokens, above = x[part].to(wide), grad[part].to(wide)
        for tree in range(weights.trees):
            for level in range(weights.levels):
                nodes = visits.path[part, tree, level].long()
                score = visits.score[part, tree, level]
                gate = None if weights.w_gate is None else visits.gate[part, tree, level]
                slope = (above * _rows(weights.w_out, None, tree, nodes, wide)).sum(-1)
                value, by_score, by_gate = slopes(weights.activation, score, gate)
                grads[2][tree].index_add_(0, nodes, value[:, None] * above)
                grads[0][tree].index_add_(0, nodes, (slope * by_score)[:, None] * tokens)
                grad_bias[tree].index_add_(0, nodes, slope * by_score)
                grad_x[part] += (slope * by_score)[:, None] * _rows(weights.w_in, None, tree, nodes, wide)
                if weights.w_gate is not None:
                    grads[1][tree].index_add_(0, nodes, (slope * by_gate)[:, None] * tokens)
                    grad_x[part] += (slope * by_gate)[:, None] * _rows(weights.w_gate, None, tree, nodes, wide)
    return grad_x, grads[0], grad_bias, grads[1], grads[2]


def slopes(activation: str, score: Tensor, gate: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return a neuron's value and its derivatives by score and gate (zeros without a gate)."""
    inner = score if gate is None else gate
    outer, slope = activation_of(activation)(inner), _SLOPES[activation](inner)
    if gate is None:
        return outer, slope, torch.zeros_like(slope)
    return outer * score, outer, slope * score


def _parts(count: int, width: int) -> list[slice]:
    """Cut tokens into parts whose gathered rows fit into memory."""
    step = max(1, _GATHERED // width)
    return [slice(start, min(count, start + step)) for start in range(0, count, step)]


def _scale(weights: TreeWeights, kind: int) -> Tensor | None:
    """Return the scales of input (0), gate (1) or output (2) rows."""
    return None if weights.scales is None else weights.scales[kind]


def _rows(rows: Tensor, scale: Tensor | None, tree: int, nodes: Tensor, dtype: torch.dtype) -> Tensor:
    """Gather the rows of nodes of one tree: [B, H]."""
    gathered = rows[tree][nodes].to(dtype)
    return gathered if scale is None else gathered * scale[tree][nodes].to(dtype)[:, None]
