"""Trees of neurons on the CPU, compiled by Numba.

Tokens go through the levels in small blocks: the rows that one token needs next do not depend on the other tokens of
its block, so the processor fetches them together. Large batches take the levels in stages. After each stage tokens are
sorted by the node they stand at, and the rows of a stage's subtree stay in the core's own cache while its tokens pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numba import carray, config, get_num_threads, prange, set_num_threads  # type: ignore[attr-defined]

from minigpt.conditional.kernels.layout import FIELDS, Prepared, numbers_of, token_types
from minigpt.conditional.kernels.numba_words import compiled, floats, parallel, pointer, put
from minigpt.conditional.kernels.weights import TreeWeights

_NUMPY = {torch.float32: np.float32, torch.bfloat16: np.uint16, torch.int8: np.int8}
_MOST_THREADS: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
# Bytes of tokens, as floats, that a block may take of the first-level cache, and the most tokens of a block.
_BLOCK_BYTES, _BLOCK = 32768, 8

(W_IN, W_GATE, W_OUT, BIAS, SCALE_IN, SCALE_GATE, SCALE_OUT) = range(7)
(ROW_IN, ROW_GATE, ROW_OUT, TREE_IN, TREE_GATE, TREE_OUT) = range(7, 13)
(TREES, NODES, WIDTH, DEPTH, ACTIVATION, CACHE, GROUP) = range(13, len(FIELDS))


def prepare(weights: TreeWeights, *, threads: int | None = None, **limits: int) -> Prepared:
    """Make trees ready for this kernel.

    Args:
        weights: trees whose rows are contiguous, best made by `weights.interleave`.
        threads: the number of threads, or None for torch's.
        limits: `cache` and `group` of `layout.numbers_of`.
    """
    start_threads()
    numbers, rows = numbers_of(weights, **limits), np.empty(0, _NUMPY[weights.w_in.dtype])
    entries = {dtype: partial(_entry, np.empty(0, _NUMPY[dtype]), rows, numbers) for dtype in token_types(weights)}
    return Prepared(weights, numbers, entries, threads)


@cache
def start_threads() -> None:
    """Start Numba's threads. That sets the OpenMP threads of the whole process, so torch gets its own number back."""
    threads = torch.get_num_threads()
    get_num_threads()
    torch.set_num_threads(threads)


def _entry(
    tokens: Any, rows: Any, numbers: Any, x: int, y: int, path: int, score: int, gate: int, count: int, threads: int
) -> None:
    """Call the compiled function for one thread or for several. Arguments as of `layout.Entry`."""
    if threads == 1 or count == 1:
        _run(tokens, rows, numbers, x, y, path, score, gate, count, 1)
        return
    threads = min(threads, _MOST_THREADS, count)
    with threads_for(threads):
        _run(tokens, rows, numbers, x, y, path, score, gate, count, threads)


@contextmanager
def threads_for(count: int) -> Iterator[None]:
    """Let parallel functions use this many threads, or all that there are if that is fewer."""
    start_threads()
    before = get_num_threads()
    set_num_threads(max(1, min(count, _MOST_THREADS)))
    try:
        yield
    finally:
        set_num_threads(before)


@compiled
def dot(x: Any, row: Any) -> Any:
    """Multiply a token with a row and sum up in fp32."""
    total = np.float32(0)
    for j in range(x.size):
        total += x[j] * floats(row[j])
    return total


@compiled
def add_rows(total: Any, rows: Any, starts: Any, values: Any, count: int) -> None:
    """Add rows, each times its value, four at a time so that the sum is read and written less often."""
    width = total.size
    i = 0
    while i + 4 <= count:
        a, b = rows[starts[i] : starts[i] + width], rows[starts[i + 1] : starts[i + 1] + width]
        c, d = rows[starts[i + 2] : starts[i + 2] + width], rows[starts[i + 3] : starts[i + 3] + width]
        p, q, r, s = values[i], values[i + 1], values[i + 2], values[i + 3]
        for j in range(width):
            total[j] += (p * floats(a[j]) + q * floats(b[j])) + (r * floats(c[j]) + s * floats(d[j]))
        i += 4
    while i < count:
        a, p = rows[starts[i] : starts[i] + width], values[i]
        for j in range(width):
            total[j] += p * floats(a[j])
        i += 1


@compiled
def activate(score: Any, kind: int) -> Any:
    """Compute the activation of a number of `weights.activation_number`."""
    one, half = np.float32(1), np.float32(0.5)
    if kind == 0:
        return half * score * (one + np.float32(math.erf(score * np.float32(0.7071067811865476))))
    if kind == 1:
        inner = np.float32(0.7978845608028654) * (score + np.float32(0.044715) * score * score * score)
        return half * score * (one + np.float32(math.tanh(inner)))
    if kind == 2:
        return np.float32(0) if score <= 0 else score
    return score / (one + np.float32(math.exp(-score)))


@compiled
def _score(x: Any, memory: Any, start: int, scale: int, neuron: int) -> Any:
    """Multiply a token with the row that starts at a place in memory, and with the scale of its neuron, if any."""
    score = dot(x, memory[start : start + x.size])
    if scale:
        score *= carray(pointer(scale), (neuron + 1,), np.float32)[neuron]
    return score


@compiled
def _route(n: Any, w_in: Any, w_gate: Any, x: Any, tokens: Any, tree: int, span: Any, visits: Any) -> None:
    """Take the tokens of a block from level span[0] to before level span[1] of one tree.

    Args:
        n: the numbers of `layout.FIELDS`.
        w_in: memory that input rows lie in.
        w_gate: memory that gate rows lie in.
        x: tokens of the block, as floats.
        tokens: their places in the batch.
        tree: which tree.
        span: the levels.
        visits: paths, scores and gates of the batch, flat.
    """
    path, score, gate = visits
    levels = n[DEPTH] + 1
    for level in range(span[0], span[1]):
        for t in range(tokens.size):
            here = (tokens[t] * n[TREES] + tree) * levels + level
            node = np.int64(path[here]) if level else 0
            path[here] = node
            neuron = tree * n[NODES] + node
            s = _score(x[t], w_in, tree * n[TREE_IN] + node * n[ROW_IN], n[SCALE_IN], neuron)
            if n[BIAS]:
                s += carray(pointer(n[BIAS]), (neuron + 1,), np.float32)[neuron]
            score[here] = s
            if n[W_GATE]:
                s = _score(x[t], w_gate, tree * n[TREE_GATE] + node * n[ROW_GATE], n[SCALE_GATE], neuron)
                gate[here] = s
            if level + 1 < levels:
                path[here + 1] = 2 * node + 1 + (s > 0)


@compiled
def _look_up(n: Any, token: int, trees: Any, visits: Any, starts: Any, values: Any) -> None:
    """Find where the output rows of a token's nodes start, and the values that they are multiplied by."""
    path, score, gate = visits
    levels, count = n[DEPTH] + 1, 0
    for tree in range(trees[0], trees[1]):
        for level in range(levels):
            here = (token * n[TREES] + tree) * levels + level
            node = np.int64(path[here])
            value = activate(gate[here] if n[W_GATE] else score[here], n[ACTIVATION])
            if n[W_GATE]:
                value *= score[here]
            if n[SCALE_OUT]:
                neuron = tree * n[NODES] + node
                value *= carray(pointer(n[SCALE_OUT]), (neuron + 1,), np.float32)[neuron]
            starts[count], values[count] = tree * n[TREE_OUT] + node * n[ROW_OUT], value
            count += 1


@compiled
def _emit(n: Any, w_out: Any, y: Any, tokens: Any, trees: Any, visits: Any, room: Any, totals: Any) -> None:
    """Add up the outputs of a block's tokens. Arguments as of `_pass`, with room for starts, values and a sum."""
    starts, values, total = room
    width = n[WIDTH]
    for token in tokens:
        if totals.size:
            total = totals[token]
        if trees[0] == 0:
            total[:] = 0
        _look_up(n, token, trees, visits, starts, values)
        add_rows(total, w_out, starts, values, starts.size)
        if trees[1] == n[TREES]:
            put(y[token * width : (token + 1) * width], total)


@compiled
def _pass(n: Any, matrices: Any, x: Any, y: Any, order: Any, trees: Any, span: Any, visits: Any, totals: Any) -> None:
    """Take tokens through levels of trees in blocks; after the last level, add up their outputs.

    Args:
        n: the numbers of `layout.FIELDS`.
        matrices: memory of input, gate and output rows.
        x: tokens of the batch.
        y: outputs of the batch.
        order: places of the tokens in the batch.
        trees: the first tree, and the one after the last.
        span: the first level, and the one after the last.
        visits: paths, scores and gates of the batch, flat.
        totals: sums [tokens, width] of the trees before, or [0, 0] where all trees are taken at once.
    """
    w_in, w_gate, w_out = matrices
    size = max(1, min(_BLOCK, _BLOCK_BYTES // (4 * n[WIDTH])))
    block = np.empty((size, n[WIDTH]), np.float32)
    places = (trees[1] - trees[0]) * (n[DEPTH] + 1)
    room = (np.empty(places, np.int64), np.empty(places, np.float32), np.empty(n[WIDTH], np.float32))
    for start in range(0, order.size, size):
        tokens = order[start : start + size]
        _read(x, tokens, block)
        for tree in range(trees[0], trees[1]):
            _route(n, w_in, w_gate, block, tokens, tree, span, visits)
        if span[1] > n[DEPTH]:
            _emit(n, w_out, y, tokens, trees, visits, room, totals)


@compiled
def _read(x: Any, tokens: Any, block: Any) -> None:
    """Copy tokens of the batch into a block, as floats."""
    width = block.shape[1]
    for t in range(tokens.size):
        token = x[tokens[t] * width : (tokens[t] + 1) * width]
        for j in range(width):
            block[t, j] = floats(token[j])


@compiled
def _stage_height(n: Any, row_bytes: int) -> int:
    """Return the number of levels whose rows below one node fit into the cache, at least one."""
    node = row_bytes * n[WIDTH] * (3 if n[W_GATE] else 2)
    height = 1
    while height <= n[DEPTH] and ((2 << height) - 1) * node <= n[CACHE]:
        height += 1
    return height


@compiled
def _sort(n: Any, path: Any, order: Any, tree: int, level: int) -> Any:
    """Return tokens sorted by the node at which they stand; those of one node keep their order."""
    levels, base = n[DEPTH] + 1, (1 << level) - 1
    starts = np.zeros((1 << level) + 1, np.int64)
    for token in order:
        starts[path[(token * n[TREES] + tree) * levels + level] - base + 1] += 1
    starts = np.cumsum(starts)
    result = np.empty_like(order)
    for token in order:
        node = path[(token * n[TREES] + tree) * levels + level] - base
        result[starts[node]] = token
        starts[node] += 1
    return result


@parallel
def _share(
    threads: int,
    n: Any,
    matrices: Any,
    x: Any,
    y: Any,
    order: Any,
    trees: Any,
    span: Any,
    visits: Any,
    totals: Any,
) -> None:
    """Divide the tokens among threads. Arguments as of `_pass`."""
    for part in prange(threads):
        share = order[order.size * part // threads : order.size * (part + 1) // threads]
        _pass(n, matrices, x, y, share, trees, span, visits, totals)


@compiled
def _run(
    tokens: Any, rows: Any, n: Any, x: int, y: int, path: int, score: int, gate: int, count: int, threads: int
) -> None:
    """Compute the layer. Arguments as of `layout.Entry`, after arrays that carry the types of tokens and rows."""
    width, levels = n[WIDTH], n[DEPTH] + 1
    xs = carray(pointer(x), (count * width,), tokens.dtype)
    ys = carray(pointer(y), (count * width,), tokens.dtype)
    span = n[TREES] * max(n[TREE_IN], n[TREE_GATE], n[TREE_OUT]) + n[NODES] * max(n[ROW_IN], n[ROW_OUT])
    matrices = (
        carray(pointer(n[W_IN]), (span,), rows.dtype),
        carray(pointer(n[W_GATE]), (span,), rows.dtype),
        carray(pointer(n[W_OUT]), (span,), rows.dtype),
    )
    places = count * n[TREES] * levels
    spare = np.empty(0 if score else 2 * places, np.float32)
    spare_path = np.empty(0 if path else places, np.int32)
    visits = (
        carray(pointer(path), (places,), np.int32) if path else spare_path,
        carray(pointer(score), (places,), np.float32) if score else spare[:places],
        carray(pointer(gate), (places,), np.float32) if gate else spare[places:],
    )
    order = np.arange(count)
    grouped = n[GROUP] > 0 and count >= n[GROUP]
    height = _stage_height(n, rows.itemsize) if grouped else levels
    stages, step = (levels + height - 1) // height, 1 if grouped else n[TREES]
    totals = np.empty((count, width) if step < n[TREES] else (0, 0), np.float32)
    for tree in range(0, n[TREES], step):
        for stage in range(stages):
            levels_of = (levels * stage // stages, levels * (stage + 1) // stages)
            if stage > 0:
                order = _sort(n, visits[0], order, tree, levels_of[0])
            if threads > 1:
                _share(threads, n, matrices, xs, ys, order, (tree, tree + step), levels_of, visits, totals)
            else:
                _pass(n, matrices, xs, ys, order, (tree, tree + step), levels_of, visits, totals)
