"""Gradients of trees of neurons on a GPU: of tokens along their paths, of rows over the tokens that visited them.

Visits are sorted by node, and a program adds up all tokens of one node in that order, so that gradients do not vary
from run to run as sums by atomic additions do.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from minigpt.conditional.kernels.layout import Visits
from minigpt.conditional.kernels.triton_parts import activate, kernel, rows_of, slope_of
from minigpt.conditional.kernels.weights import TreeWeights, activation_number

# Numbers of rows that a program has on the way at once.
_ON_THE_WAY = 8192


def backward(
    weights: TreeWeights, x: Tensor, visits: Visits, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of tokens, input weights, biases, gate weights and output weights in fp32.

    Args:
        weights: trees without scales.
        x: tokens [B, H].
        visits: what the forward pass left.
        grad: gradient of the output [B, H].
    """
    shape, gated = weights.w_in.shape, weights.w_gate is not None
    grads = [x.new_empty(shape if wanted else (0,), dtype=torch.float32) for wanted in (True, gated, True)]
    g_bias, g_x = x.new_empty(shape[:2], dtype=torch.float32), x.new_empty(x.shape, dtype=torch.float32)
    if not len(x):
        return g_x, grads[0].zero_(), g_bias.zero_(), grads[1].zero_(), grads[2].zero_()
    x, grad = x.contiguous(), grad.contiguous()
    factors = x.new_empty((3, *visits.path.shape), dtype=torch.float32)
    room = max(2, triton.next_power_of_2(weights.levels))
    facts: dict[str, Any] = {"TREES": weights.trees, "WIDTH": weights.width, "LEVELS": weights.levels, "GATED": gated}
    facts |= {"ROOM": room, "BLOCK": min(triton.next_power_of_2(weights.width), _ON_THE_WAY // room)}
    rows = rows_of(weights)
    kept = (visits.path, visits.score, visits.gate if gated else visits.score)
    act = activation_number(weights.activation)
    _factors[(len(x), weights.trees)](grad, *kept, factors, len(x), rows[2], rows[7], rows[10], ACT=act, **facts)
    blocks = triton.cdiv(weights.width, facts["BLOCK"])
    _token_grads[(len(x), blocks)](
        g_x, visits.path, factors, len(x), rows[0], rows[1], *rows[5:7], *rows[8:10], **facts
    )
    keys = visits.path.long() + torch.arange(weights.trees, device=x.device)[:, None] * weights.nodes
    ordered, visit = keys.flatten().sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(weights.trees * weights.nodes + 1, device=x.device))
    block = min(128, triton.next_power_of_2(weights.width))
    targets = (grads[0], grads[1] if gated else g_bias, grads[2], g_bias)
    _row_grads[(weights.trees * weights.nodes, triton.cdiv(weights.width, block))](
        *(x, grad, factors, visit, starts, *targets, visit.numel()),
        VISITS=weights.trees * weights.levels,
        WIDTH=weights.width,
        GATED=gated,
        TILE=32,
        BLOCK=block,
    )
    return g_x, grads[0], g_bias, grads[1], grads[2]


@kernel
def _factors(
    grad_ptr: tl.tensor,
    path_ptr: tl.tensor,
    score_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    factor_ptr: tl.tensor,
    tokens: tl.tensor,
    out_ptr: tl.tensor,
    row_out: tl.tensor,
    tree_out: tl.tensor,
    TREES: tl.constexpr,
    WIDTH: tl.constexpr,
    LEVELS: tl.constexpr,
    GATED: tl.constexpr,
    ROOM: tl.constexpr,
    BLOCK: tl.constexpr,
    ACT: tl.constexpr,
) -> None:
    """Write what each visited neuron's rows are multiplied by: the slopes of score and gate, and the value."""
    token, tree, level = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.arange(0, ROOM)
    place, real = (token * TREES + tree) * LEVELS + level, level < LEVELS
    node = tl.load(path_ptr + place, mask=real, other=0).to(tl.int64)
    slope = tl.zeros([ROOM], tl.float32)
    for start in tl.static_range(0, WIDTH, BLOCK):
        dim = start + tl.arange(0, BLOCK)
        above = tl.load(grad_ptr + token * WIDTH + dim, mask=dim < WIDTH, other=0.0).to(tl.float32)
        rows = out_ptr + tree * tree_out + node[:, None] * row_out + dim[None, :]
        read = tl.load(rows, mask=real[:, None] & (dim < WIDTH)[None, :], other=0.0).to(tl.float32)
        slope += tl.sum(read * above[None, :], axis=1)
    score = tl.load(score_ptr + place, mask=real, other=0.0)
    size = tokens.to(tl.int64) * TREES * LEVELS
    if GATED:
        gate = tl.load(gate_ptr + place, mask=real, other=0.0)
        outer = activate(gate, ACT)
        tl.store(factor_ptr + place, slope * outer, mask=real)
        tl.store(factor_ptr + size + place, slope * slope_of(gate, ACT) * score, mask=real)
        tl.store(factor_ptr + 2 * size + place, outer * score, mask=real)
    else:
        tl.store(factor_ptr + place, slope * slope_of(score, ACT), mask=real)
        tl.store(factor_ptr + 2 * size + place, activate(score, ACT), mask=real)


@kernel
def _token_grads(
    grad_ptr: tl.tensor,
    path_ptr: tl.tensor,
    factor_ptr: tl.tensor,
    tokens: tl.tensor,
    in_ptr: tl.tensor,
    open_ptr: tl.tensor,
    row_in: tl.tensor,
    row_open: tl.tensor,
    tree_in: tl.tensor,
    tree_open: tl.tensor,
    TREES: tl.constexpr,
    WIDTH: tl.constexpr,
    LEVELS: tl.constexpr,
    GATED: tl.constexpr,
    ROOM: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Write the gradient of a part of one token: the rows of its paths, each times its factor."""
    token, level = tl.program_id(0).to(tl.int64), tl.arange(0, ROOM)
    dim = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask, total = (level < LEVELS)[:, None] & (dim < WIDTH)[None, :], tl.zeros([BLOCK], tl.float32)
    for tree in range(0, TREES):
        place = (token * TREES + tree) * LEVELS + level
        node = tl.load(path_ptr + place, mask=level < LEVELS, other=0).to(tl.int64)[:, None]
        factor = tl.load(factor_ptr + place, mask=level < LEVELS, other=0.0)
        read = tl.load(in_ptr + tree * tree_in + node * row_in + dim[None, :], mask=mask, other=0.0)
        total += tl.sum(read.to(tl.float32) * factor[:, None], axis=0)
        if GATED:
            size = tokens.to(tl.int64) * TREES * LEVELS
            factor = tl.load(factor_ptr + size + place, mask=level < LEVELS, other=0.0)
            read = tl.load(open_ptr + tree * tree_open + node * row_open + dim[None, :], mask=mask, other=0.0)
            total += tl.sum(read.to(tl.float32) * factor[:, None], axis=0)
    tl.store(grad_ptr + token * WIDTH + dim, total, mask=dim < WIDTH)


@kernel
def _row_grads(
    x_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    factor_ptr: tl.tensor,
    visit_ptr: tl.tensor,
    start_ptr: tl.tensor,
    g_in_ptr: tl.tensor,
    g_open_ptr: tl.tensor,
    g_out_ptr: tl.tensor,
    g_bias_ptr: tl.tensor,
    size: tl.tensor,
    VISITS: tl.constexpr,
    WIDTH: tl.constexpr,
    GATED: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Write a part of the gradients of one node's rows: the sums over the tokens that visited it."""
    node = tl.program_id(0).to(tl.int64)
    dim = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    begin, end = tl.load(start_ptr + node), tl.load(start_ptr + node + 1)
    g_in, g_open, g_out = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    g_bias = tl.zeros([TILE], tl.float32)
    while begin < end:
        place = begin + tl.arange(0, TILE)
        visit = tl.load(visit_ptr + place, mask=place < end, other=0)
        where = (visit // VISITS)[:, None] * WIDTH + dim[None, :]
        mask = (place < end)[:, None] & (dim < WIDTH)[None, :]
        x = tl.load(x_ptr + where, mask=mask, other=0.0).to(tl.float32)
        above = tl.load(grad_ptr + where, mask=mask, other=0.0).to(tl.float32)
        factor = tl.load(factor_ptr + visit, mask=place < end, other=0.0)
        g_bias += factor
        g_in += tl.sum(x * factor[:, None], axis=0)
        if GATED:
            factor = tl.load(factor_ptr + size + visit, mask=place < end, other=0.0)
            g_open += tl.sum(x * factor[:, None], axis=0)
        factor = tl.load(factor_ptr + 2 * size.to(tl.int64) + visit, mask=place < end, other=0.0)
        g_out += tl.sum(above * factor[:, None], axis=0)
        begin += TILE
    tl.store(g_in_ptr + node * WIDTH + dim, g_in, mask=dim < WIDTH)
    tl.store(g_out_ptr + node * WIDTH + dim, g_out, mask=dim < WIDTH)
    if GATED:
        tl.store(g_open_ptr + node * WIDTH + dim, g_open, mask=dim < WIDTH)
    if tl.program_id(1) == 0:
        tl.store(g_bias_ptr + node, tl.sum(g_bias, axis=0))
