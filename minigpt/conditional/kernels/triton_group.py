"""Trees of neurons on the GPU for many tokens: the levels in stages, with tokens grouped by the subtree they stand at.

In a stage a tile of tokens that stand at the same node multiplies with all rows of the subtree below it, on the matrix
units, which do the rows off the path at less cost than reading rows for each token; then each token takes its path, and
values off it become zero. Between stages tokens are sorted by counting. At the end the values of all stages multiply
with the output rows, for tokens in the order of the last stage.
"""

from __future__ import annotations

from typing import Any

import triton.language as tl

from minigpt.conditional.kernels.triton_parts import activate, kernel, level_of, node_of


# fmt: off
@kernel
def stage(
    x_ptr: tl.tensor, order_ptr: tl.tensor, key_ptr: tl.tensor, value_ptr: tl.tensor, next_ptr: tl.tensor,
    rank_ptr: tl.tensor, count_ptr: tl.tensor, path_ptr: tl.tensor, score_ptr: tl.tensor, gate_ptr: tl.tensor,
    in_ptr: tl.tensor, open_ptr: tl.tensor, out_ptr: tl.tensor, bias_ptr: tl.tensor, scale_ptr: tl.tensor,
    row_in: tl.tensor, row_open: tl.tensor, row_out: tl.tensor,
    tree_in: tl.tensor, tree_open: tl.tensor, tree_out: tl.tensor, tokens: tl.tensor,
    TREES: tl.constexpr, NODES: tl.constexpr, WIDTH: tl.constexpr, LEVELS: tl.constexpr, ACT: tl.constexpr,
    GATED: tl.constexpr, BIASED: tl.constexpr, SCALED: tl.constexpr, KEEP: tl.constexpr,
    FIRST: tl.constexpr, DEPTH: tl.constexpr, ROOM: tl.constexpr, STAGES: tl.constexpr,
    TILE: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr,
) -> None:
    """Take a tile of tokens through `DEPTH` levels from level `FIRST`, and count who goes where."""
    tree, spot = tl.program_id(1).to(tl.int64), tl.program_id(0) * TILE + tl.arange(0, TILE)
    token, key = _sorted_tokens(order_ptr, key_ptr, spot, tree, tokens, FIRST > 0)
    local = tl.arange(0, ROOM)
    below = level_of(local, DEPTH)
    real = (local < (1 << DEPTH) - 1) & (FIRST + below < LEVELS)
    scores, gates = tl.zeros([TILE, ROOM], tl.float32), tl.zeros([TILE, ROOM], tl.float32)
    outs, scale_ptr = tl.full([TILE, ROOM], 1.0, tl.float32), scale_ptr + tree * NODES
    group = tl.min(key, axis=0)
    while group < 1073741824:
        node = node_of(group + (1 << FIRST) - 1, local, below)
        in_group = (key == group)[:, None]
        rows = in_ptr + tree * tree_in + node[:, None].to(tl.int64) * row_in
        new = _products(x_ptr, token, in_group, rows, real, WIDTH, TILE, ROOM, BLOCK, WIDE)
        if SCALED:
            new *= tl.load(scale_ptr + node, mask=real, other=0.0)[None, :]
            out_scale = tl.load(scale_ptr + 2 * TREES * NODES + node, mask=real, other=0.0)
            outs = tl.where(in_group, out_scale[None, :], outs)
        if BIASED:
            new += tl.load(bias_ptr + tree * NODES + node, mask=real, other=0.0)[None, :]
        scores = tl.where(in_group, new, scores)
        if GATED:
            rows = open_ptr + tree * tree_open + node[:, None].to(tl.int64) * row_open
            new = _products(x_ptr, token, in_group, rows, real, WIDTH, TILE, ROOM, BLOCK, WIDE)
            if SCALED:
                new *= tl.load(scale_ptr + TREES * NODES + node, mask=real, other=0.0)[None, :]
            gates = tl.where(in_group, new, gates)
        group = tl.min(tl.where(key > group, key, 1073741824), axis=0)
    values = activate(gates, ACT) * scores if GATED else activate(scores, ACT)
    place = (token.to(tl.int64) * TREES + tree) * LEVELS
    on, at = _paths(
        path_ptr, score_ptr, gate_ptr, place, scores, gates, key, spot < tokens,
        LEVELS, GATED, KEEP, FIRST, DEPTH, ROOM, TILE,
    )
    values = tl.where(on, values * outs, 0.0)
    number = tree * STAGES + FIRST // DEPTH
    where = value_ptr + (number * tokens + token[:, None]) * ROOM + local[None, :]
    tl.store(where, values.to(value_ptr.dtype.element_ty), mask=(spot < tokens)[:, None])
    if FIRST + DEPTH < LEVELS:
        goes = (key << DEPTH) + at + 1 - (1 << DEPTH)
        rank = tl.atomic_add(count_ptr + (tree << (FIRST + DEPTH)) + goes, 1, mask=spot < tokens, sem="relaxed")
        tl.store(next_ptr + tree * tokens + token, goes, mask=spot < tokens)
        tl.store(rank_ptr + tree * tokens + token, rank, mask=spot < tokens)
# fmt: on


@kernel
def _sorted_tokens(
    order_ptr: tl.tensor,
    key_ptr: tl.tensor,
    spot: tl.tensor,
    tree: tl.tensor,
    tokens: tl.tensor,
    SORTED: tl.constexpr,
) -> Any:
    """Return the tokens at places of the order, and the subtrees they stand at (a large number past the end)."""
    if SORTED:
        token = tl.load(order_ptr + tree * tokens + spot, mask=spot < tokens, other=0)
        key = tl.load(key_ptr + tree * tokens + token, mask=spot < tokens, other=0)
    else:
        token = tl.where(spot < tokens, spot, 0)
        key = spot * 0
    return token, tl.where(spot < tokens, key, 1073741824)


@kernel
def _as(rows: tl.tensor, DTYPE: tl.constexpr) -> Any:
    """Convert rows; int8 goes by way of fp32, because Triton's interpreter knows no other."""
    if rows.dtype == tl.int8:
        rows = rows.to(tl.float32)
    return rows.to(DTYPE)


@kernel
def _matrix(a: tl.tensor, b: tl.tensor, WIDE: tl.constexpr) -> Any:
    """Multiply matrices with fp32 sums; `WIDE` is for Triton's interpreter, which cannot multiply bf16."""
    if WIDE:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@kernel
def _products(
    x_ptr: tl.tensor,
    token: tl.tensor,
    in_group: tl.tensor,
    rows: tl.tensor,
    real: tl.tensor,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    ROOM: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
) -> Any:
    """Multiply the tokens of a group with rows: [TILE, ROOM]."""
    total = tl.zeros([TILE, ROOM], tl.float32)
    for start in range(0, WIDTH, BLOCK):
        dim = start + tl.arange(0, BLOCK)
        inside = (dim < WIDTH)[None, :]
        x = tl.load(x_ptr + token[:, None].to(tl.int64) * WIDTH + dim[None, :], mask=in_group & inside, other=0.0)
        read = tl.load(rows + dim[None, :], mask=real[:, None] & inside, other=0.0)
        total += _matrix(x, tl.trans(_as(read, x_ptr.dtype.element_ty)), WIDE)
    return total


@kernel
def _paths(
    path_ptr: tl.tensor,
    score_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    place: tl.tensor,
    scores: tl.tensor,
    gates: tl.tensor,
    key: tl.tensor,
    real: tl.tensor,
    LEVELS: tl.constexpr,
    GATED: tl.constexpr,
    KEEP: tl.constexpr,
    FIRST: tl.constexpr,
    DEPTH: tl.constexpr,
    ROOM: tl.constexpr,
    TILE: tl.constexpr,
) -> Any:
    """Return which nodes of the subtree are on a token's path, and where it leaves the subtree."""
    local = tl.arange(0, ROOM)
    on, at = tl.zeros([TILE, ROOM], tl.int32), tl.zeros([TILE], tl.int32)
    for step in tl.static_range(0, DEPTH):
        if FIRST + step < LEVELS:
            here = local[None, :] == at[:, None]
            score = tl.sum(tl.where(here, scores, 0.0), axis=1)
            decision = tl.sum(tl.where(here, gates, 0.0), axis=1) if GATED else score
            if KEEP:
                node = node_of(key + (1 << FIRST) - 1, at, step)
                tl.store(path_ptr + place + FIRST + step, node, mask=real)
                tl.store(score_ptr + place + FIRST + step, score, mask=real)
                if GATED:
                    tl.store(gate_ptr + place + FIRST + step, decision, mask=real)
            on += here.to(tl.int32)
            at = 2 * at + 1 + (decision > 0).to(tl.int32)
    return on > 0, at


@kernel
def sort(
    key_ptr: tl.tensor,
    rank_ptr: tl.tensor,
    count_ptr: tl.tensor,
    order_ptr: tl.tensor,
    tokens: tl.tensor,
    GROUPS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Write each token to its place in the order of subtrees: how many stand at earlier ones, and its rank."""
    tree, token = tl.program_id(1).to(tl.int64), tl.program_id(0) * TILE + tl.arange(0, TILE)
    key = tl.load(key_ptr + tree * tokens + token, mask=token < tokens, other=0)
    place = tl.load(rank_ptr + tree * tokens + token, mask=token < tokens, other=0)
    for start in range(0, GROUPS, 64):
        group = start + tl.arange(0, 64)
        count = tl.load(count_ptr + tree * GROUPS + group, mask=group < GROUPS, other=0)
        place += tl.sum(tl.where(group[None, :] < key[:, None], count[None, :], 0), axis=1)
    tl.store(order_ptr + tree * tokens + place, token, mask=token < tokens)


@kernel
def outputs(
    order_ptr: tl.tensor,
    key_ptr: tl.tensor,
    value_ptr: tl.tensor,
    y_ptr: tl.tensor,
    part_ptr: tl.tensor,
    out_ptr: tl.tensor,
    row_out: tl.tensor,
    tree_out: tl.tensor,
    tree: tl.tensor,
    tokens: tl.tensor,
    WIDTH: tl.constexpr,
    LEVELS: tl.constexpr,
    DEPTH: tl.constexpr,
    ROOM: tl.constexpr,
    STAGES: tl.constexpr,
    BEGIN: tl.constexpr,
    END: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Add what the paths of one tree give to a part of the output; the last tree writes the output itself."""
    spot, dim = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    local, inside = tl.arange(0, ROOM), (dim < WIDTH)[None, :]
    below = level_of(local, DEPTH)
    total = tl.zeros([TILE, BLOCK], tl.float32)
    token, last = _sorted_tokens(order_ptr, key_ptr, spot, tree.to(tl.int64), tokens, STAGES > 1)
    for number in tl.static_range(0, STAGES):
        key = tl.where(spot < tokens, last >> ((STAGES - 1 - number) * DEPTH), 1073741824)
        where = ((tree.to(tl.int64) * STAGES + number) * tokens + token[:, None]) * ROOM + local[None, :]
        values = tl.load(value_ptr + where, mask=(spot < tokens)[:, None], other=0.0)
        real = (local < (1 << DEPTH) - 1) & (number * DEPTH + below < LEVELS)
        group = tl.min(key, axis=0)
        while group < 1073741824:
            node = node_of(group + (1 << (number * DEPTH)) - 1, local, below).to(tl.int64)
            rows = out_ptr + tree.to(tl.int64) * tree_out + node[:, None] * row_out + dim[None, :]
            read = _as(tl.load(rows, mask=real[:, None] & inside, other=0.0), value_ptr.dtype.element_ty)
            part = tl.where((key == group)[:, None], values, 0.0).to(value_ptr.dtype.element_ty)
            total += _matrix(part, read, WIDE)
            group = tl.min(tl.where(key > group, key, 1073741824), axis=0)
    where = token[:, None].to(tl.int64) * WIDTH + dim[None, :]
    mask = (spot < tokens)[:, None] & inside
    if not BEGIN:
        total += tl.load(part_ptr + where, mask=mask, other=0.0)
    if END:
        tl.store(y_ptr + where, total.to(y_ptr.dtype.element_ty), mask=mask)
    else:
        tl.store(part_ptr + where, total, mask=mask)
