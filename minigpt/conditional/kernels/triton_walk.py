"""Trees of neurons on the GPU for few tokens: one program for each token and tree walks the path.

A path is a chain of reads that wait for each other, and at one token that is all the time there is. So a program reads
the rows of several levels ahead, all nodes that the path may come to, and decides then; only the rows that decide are
read so. The other rows of the path are known by then and are read together. Several trees leave their sums in memory,
and the program that comes last adds them, in one order, so that results do not vary.
"""

from __future__ import annotations

from typing import Any

import triton.language as tl

from minigpt.conditional.kernels.triton_parts import activate, kernel, level_of, node_of


# fmt: off
@kernel
def walk(
    x_ptr: tl.tensor, y_ptr: tl.tensor, part_ptr: tl.tensor, count_ptr: tl.tensor,
    path_ptr: tl.tensor, score_ptr: tl.tensor, gate_ptr: tl.tensor,
    in_ptr: tl.tensor, open_ptr: tl.tensor, out_ptr: tl.tensor, bias_ptr: tl.tensor, scale_ptr: tl.tensor,
    row_in: tl.tensor, row_open: tl.tensor, row_out: tl.tensor,
    tree_in: tl.tensor, tree_open: tl.tensor, tree_out: tl.tensor,
    TREES: tl.constexpr, NODES: tl.constexpr, WIDTH: tl.constexpr, LEVELS: tl.constexpr, ACT: tl.constexpr,
    GATED: tl.constexpr, BIASED: tl.constexpr, SCALED: tl.constexpr, KEEP: tl.constexpr,
    BLOCK: tl.constexpr, PIECE: tl.constexpr, ROOM: tl.constexpr, AHEAD: tl.constexpr,
) -> None:
    """Compute one tree for one token; `open` stands for the gate's rows."""
    token, tree = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    x_ptr += token * WIDTH
    in_ptr += tree * tree_in
    scale_ptr += tree * NODES
    bias_ptr += tree * NODES
    level = tl.arange(0, ROOM)
    if GATED:
        scale = scale_ptr + TREES * NODES
        rows = open_ptr + tree * tree_open
        nodes, gates = _descend(
            x_ptr, rows, row_open, scale, bias_ptr, WIDTH, LEVELS, False, SCALED, BLOCK, ROOM, AHEAD
        )
        scores = _dots(x_ptr, in_ptr, row_in, nodes, WIDTH, LEVELS, BLOCK, PIECE, ROOM)
        if SCALED:
            scores *= tl.load(scale_ptr + nodes, mask=level < LEVELS, other=0.0)
        if BIASED:
            scores += tl.load(bias_ptr + nodes, mask=level < LEVELS, other=0.0)
        values = activate(gates, ACT) * scores
    else:
        nodes, scores = _descend(
            x_ptr, in_ptr, row_in, scale_ptr, bias_ptr, WIDTH, LEVELS, BIASED, SCALED, BLOCK, ROOM, AHEAD
        )
        gates = scores
        values = activate(scores, ACT)
    if KEEP:
        place = (token * TREES + tree) * LEVELS + level
        tl.store(path_ptr + place, nodes.to(tl.int32), mask=level < LEVELS)
        tl.store(score_ptr + place, scores, mask=level < LEVELS)
        if GATED:
            tl.store(gate_ptr + place, gates, mask=level < LEVELS)
    if SCALED:
        values *= tl.load(scale_ptr + 2 * TREES * NODES + nodes, mask=level < LEVELS, other=0.0)
    values = tl.where(level < LEVELS, values, 0.0)
    rows = out_ptr + tree * tree_out
    if TREES == 1:
        _add_up(y_ptr + token * WIDTH, rows, row_out, nodes, values, WIDTH, LEVELS, BLOCK, PIECE, ROOM)
    else:
        part_ptr += token * TREES * WIDTH
        _add_up(part_ptr + tree * WIDTH, rows, row_out, nodes, values, WIDTH, LEVELS, BLOCK, PIECE, ROOM)
        _combine(y_ptr + token * WIDTH, part_ptr, count_ptr + token, TREES, WIDTH, BLOCK)
# fmt: on


@kernel
def _descend(
    x_ptr: tl.tensor,
    rows: tl.tensor,
    row: tl.tensor,
    scale_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    WIDTH: tl.constexpr,
    LEVELS: tl.constexpr,
    BIASED: tl.constexpr,
    SCALED: tl.constexpr,
    BLOCK: tl.constexpr,
    ROOM: tl.constexpr,
    AHEAD: tl.constexpr,
) -> Any:
    """Return the nodes of a token's path and their decisions, level by level."""
    dim, local, level = tl.arange(0, BLOCK), tl.arange(0, 1 << AHEAD), tl.arange(0, ROOM)
    below = level_of(local, AHEAD)
    x = tl.load(x_ptr + dim, mask=dim < WIDTH, other=0.0).to(tl.float32)
    root = tl.program_id(1) * 0
    nodes, decisions = tl.zeros([ROOM], tl.int64), tl.zeros([ROOM], tl.float32)
    for step in tl.static_range(0, LEVELS, AHEAD):
        node = node_of(root, local, below).to(tl.int64)
        real = (local < (1 << AHEAD) - 1) & (step + below < LEVELS)
        mask = real[:, None] & (dim < WIDTH)[None, :]
        read = tl.load(rows + node[:, None] * row + dim[None, :], mask=mask, other=0.0).to(tl.float32)
        sums = tl.sum(read * x[None, :], axis=1)
        if SCALED:
            sums *= tl.load(scale_ptr + node, mask=real, other=0.0)
        if BIASED:
            sums += tl.load(bias_ptr + node, mask=real, other=0.0)
        at = root * 0
        for more in tl.static_range(0, AHEAD):
            if step + more < LEVELS:
                decision = tl.sum(tl.where(local == at, sums, 0.0), axis=0)
                nodes = tl.where(level == step + more, node_of(root, at, more).to(tl.int64), nodes)
                decisions = tl.where(level == step + more, decision, decisions)
                at = 2 * at + 1 + (decision > 0).to(tl.int32)
        root = node_of(root, at, AHEAD)
    return nodes, decisions


@kernel
def _dots(
    x_ptr: tl.tensor,
    rows: tl.tensor,
    row: tl.tensor,
    nodes: tl.tensor,
    WIDTH: tl.constexpr,
    LEVELS: tl.constexpr,
    BLOCK: tl.constexpr,
    PIECE: tl.constexpr,
    ROOM: tl.constexpr,
) -> Any:
    """Multiply a token with the rows of a path."""
    level, sums = tl.arange(0, ROOM), tl.zeros([ROOM], tl.float32)
    for start in tl.static_range(0, BLOCK, PIECE):
        dim = start + tl.arange(0, PIECE)
        x = tl.load(x_ptr + dim, mask=dim < WIDTH, other=0.0).to(tl.float32)
        mask = (level < LEVELS)[:, None] & (dim < WIDTH)[None, :]
        read = tl.load(rows + nodes[:, None] * row + dim[None, :], mask=mask, other=0.0).to(tl.float32)
        sums += tl.sum(read * x[None, :], axis=1)
    return sums


@kernel
def _add_up(
    y_ptr: tl.tensor,
    rows: tl.tensor,
    row: tl.tensor,
    nodes: tl.tensor,
    values: tl.tensor,
    WIDTH: tl.constexpr,
    LEVELS: tl.constexpr,
    BLOCK: tl.constexpr,
    PIECE: tl.constexpr,
    ROOM: tl.constexpr,
) -> None:
    """Store the sum of the rows of a path, each times its value."""
    level = tl.arange(0, ROOM)
    for start in tl.static_range(0, BLOCK, PIECE):
        dim = start + tl.arange(0, PIECE)
        mask = (level < LEVELS)[:, None] & (dim < WIDTH)[None, :]
        read = tl.load(rows + nodes[:, None] * row + dim[None, :], mask=mask, other=0.0).to(tl.float32)
        total = tl.sum(read * values[:, None], axis=0)
        tl.store(y_ptr + dim, total.to(y_ptr.dtype.element_ty), mask=dim < WIDTH)


@kernel
def _combine(
    y_ptr: tl.tensor,
    part_ptr: tl.tensor,
    count_ptr: tl.tensor,
    TREES: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Add the sums of all trees if this program is the last of its token, and set the count back to zero."""
    tl.debug_barrier()
    before = tl.atomic_add(count_ptr, 1, sem="acq_rel", scope="gpu")
    if before == TREES - 1:
        dim = tl.arange(0, BLOCK)
        total = tl.zeros([BLOCK], tl.float32)
        for tree in tl.static_range(0, TREES):
            # Past the first-level cache, which does not see what other programs wrote.
            total += tl.load(part_ptr + tree * WIDTH + dim, mask=dim < WIDTH, other=0.0, cache_modifier=".cg")
        tl.store(y_ptr + dim, total.to(y_ptr.dtype.element_ty), mask=dim < WIDTH)
        tl.store(count_ptr, 0)
