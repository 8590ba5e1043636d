"""Row-skipping layers on a GPU, by Triton: a program for each token and block of neurons, then one sum over blocks.

A program multiplies the token with its block's gate rows, then with the input rows of the neurons whose gate is open,
and adds up the output rows of those whose value counts. A row that is masked out causes no traffic. Programs leave sums
in fp32 that a second launch adds in one order, so that results do not vary. Sizes depend on shapes alone and nothing
waits for the host, so that all of it can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from minigpt.conditional.kernels.row_weights import RowWeights
from minigpt.conditional.kernels.triton_parts import activate, kernel
from minigpt.conditional.kernels.weights import activation_number

# Neurons of a program, at least and at most, and the number of programs that keeps all multiprocessors busy.
_FEWEST, _MOST, _PROGRAMS = 4, 32, 512
# Columns of a row that a program reads at a time, and numbers of its rows for each warp, which registers hold.
_PIECE, _NUMBERS = 512, 8192
# Columns and partial sums that a program of the last launch reads at a time.
_COLUMNS, _PARTS = 16, 256
# Values for each warp of the program that looks for the largest ones.
_SORTED = 256


@dataclass(frozen=True, slots=True)
class Launch:
    """Sizes of a program, which change its speed and the rounding of sums.

    Attributes:
        block: neurons of a program, a power of two.
        piece: columns that it reads at a time, a power of two.
        warps: groups of threads.
    """

    block: int
    piece: int
    warps: int


def prepare(weights: RowWeights, launch: Launch | None = None) -> Callable[[Tensor], Tensor] | None:
    """Return a function of tokens [B, H] that computes a layer whose weights `rows.prepare` has checked.

    None is returned for layers with leaves, which have no such kernel.

    Args:
        weights: the layer.
        launch: sizes of programs, or None for those that suit the layer's size.
    """
    if weights.depth:
        return None
    *_, neurons, width = weights.w_in.shape
    launch = launch or launch_of(neurons, width)
    return _largest(weights, launch) if weights.top_k else _passing(weights, launch)


def launch_of(neurons: int, width: int) -> Launch:
    """Return sizes that leave enough programs, whose rows fit into registers."""
    block = _FEWEST
    while block < _MOST and neurons >= 2 * block * _PROGRAMS:
        block *= 2
    warps = min(16, max(4, triton.next_power_of_2(block * width // _NUMBERS)))
    return Launch(block, min(_PIECE, triton.next_power_of_2(width)), warps)


def _passing(weights: RowWeights, launch: Launch) -> Callable[[Tensor], Tensor]:
    """Return the function for layers in which thresholds say which neurons count."""
    rows, facts, (blocks, width) = _read(weights), _facts(weights, launch), _blocks(weights, launch)

    def compute(x: Tensor) -> Tensor:
        x = x.contiguous()
        parts = x.new_empty((len(x), blocks, width), dtype=torch.float32)
        # Tokens are the inner number, so that programs that need the same rows run at the same time.
        _neurons[(len(x), blocks)](x, parts, *rows, **facts, STORE=False, num_warps=launch.warps)
        return _added(parts, x, weights.b_out)

    return compute


def _largest(weights: RowWeights, launch: Launch) -> Callable[[Tensor], Tensor]:
    """Return the function for layers in which the k largest values count: all values, which count, and their rows.

    Looking for the largest values takes longer than the skipped rows save, so that dense layers are faster. It is kept
    because layers of this kind have to look for them anyway, and plain torch sorts them for it.
    """
    rows, facts, (blocks, width) = _read(weights), _facts(weights, launch), _blocks(weights, launch)
    neurons = facts["NEURONS"]
    room = triton.next_power_of_2(neurons)
    sizes = {"NEURONS": neurons, "WIDTH": width, "BLOCK": launch.block, "PIECE": launch.piece}

    def compute(x: Tensor) -> Tensor:
        x = x.contiguous()
        values = x.new_empty((len(x), neurons), dtype=torch.float32)
        _neurons[(len(x), blocks)](x, values, *rows, **facts, STORE=True, num_warps=launch.warps)
        warps = min(32, max(4, room // _SORTED))
        _keep_largest[(len(x),)](values, COUNT=weights.top_k, NEURONS=neurons, ROOM=room, num_warps=warps)
        parts = x.new_empty((len(x), blocks, width), dtype=torch.float32)
        _weighted[(len(x), blocks)](values, parts, weights.w_out, **sizes, num_warps=launch.warps)
        return _added(parts, x, weights.b_out)

    return compute


def _blocks(weights: RowWeights, launch: Launch) -> tuple[int, int]:
    """Return the number of programs for a token, and the width of rows."""
    *_, neurons, width = weights.w_in.shape
    return triton.cdiv(neurons, launch.block), width


def _read(weights: RowWeights) -> tuple[Any, ...]:
    """Return what the kernel of neurons gets of a layer; what there is not is stood in for, and not read."""
    w = weights
    gate, bias = (w.w_in if rows is None else rows for rows in (w.w_gate, w.b_in))
    return w.w_in, gate, w.w_out, bias, float(w.gate_above), float(w.value_above)


def _facts(weights: RowWeights, launch: Launch) -> dict[str, Any]:
    """Return the constants that the kernel of neurons is compiled for."""
    *_, neurons, width = weights.w_in.shape
    both = weights.activation == "drelu"
    return {
        "NEURONS": neurons,
        "WIDTH": width,
        "ACT": activation_number("relu" if both else weights.activation),
        "GATED": weights.w_gate is not None,
        "BIASED": weights.b_in is not None,
        "BOTH": both,
        "BLOCK": launch.block,
        "PIECE": launch.piece,
    }


def _added(parts: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """Return the sums over programs [B, H] in the type of the tokens, with a bias if there is one."""
    y, (_, blocks, width) = torch.empty_like(x), parts.shape
    _sums[(len(x), triton.cdiv(width, _COLUMNS))](
        *(parts, y, parts if bias is None else bias),
        PARTS=blocks,
        WIDTH=width,
        BIASED=bias is not None,
        ROOM=min(_PARTS, triton.next_power_of_2(blocks)),
        COLUMNS=_COLUMNS,
        num_warps=4,
    )
    return y


# fmt: off
@kernel
def _neurons(
    x_ptr: tl.tensor, part_ptr: tl.tensor, in_ptr: tl.tensor, open_ptr: tl.tensor, out_ptr: tl.tensor,
    bias_ptr: tl.tensor, gate_above: tl.tensor, value_above: tl.tensor,
    NEURONS: tl.constexpr, WIDTH: tl.constexpr, ACT: tl.constexpr,
    GATED: tl.constexpr, BIASED: tl.constexpr, BOTH: tl.constexpr, BLOCK: tl.constexpr, PIECE: tl.constexpr,
    STORE: tl.constexpr,
) -> None:
    """Compute one block of neurons for one token, and store values or what they add; `open` is the gate's rows."""
    token = tl.program_id(0).to(tl.int64)
    neuron = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = neuron < NEURONS
    x_ptr += token * WIDTH
    if GATED:
        gates = activate(_dots(x_ptr, open_ptr, neuron, real, WIDTH, BLOCK, PIECE), ACT)
        # Not "above": what is no number must not vanish.
        passes = real & ~(tl.abs(gates) <= gate_above)
        scores = _dots(x_ptr, in_ptr, neuron, passes, WIDTH, BLOCK, PIECE)
        if BIASED:
            scores += tl.load(bias_ptr + neuron, mask=passes, other=0.0).to(tl.float32)
        if BOTH:
            scores = activate(scores, ACT)
        values = tl.where(passes, gates * scores, 0.0)
    else:
        passes = real
        scores = _dots(x_ptr, in_ptr, neuron, passes, WIDTH, BLOCK, PIECE)
        if BIASED:
            scores += tl.load(bias_ptr + neuron, mask=passes, other=0.0).to(tl.float32)
        values = activate(scores, ACT)
    if STORE:
        tl.store(part_ptr + token * NEURONS + neuron, values, mask=real)
    else:
        passes = passes & ~(tl.abs(values) <= value_above)
        place = (token * tl.num_programs(1) + tl.program_id(1)) * WIDTH
        _add_up(part_ptr + place, out_ptr, neuron, passes, values, WIDTH, PIECE)


@kernel
def _keep_largest(
    value_ptr: tl.tensor, COUNT: tl.constexpr, NEURONS: tl.constexpr, ROOM: tl.constexpr,
) -> None:
    """Set all but the values of largest size of one token to zero; of equal ones at the border the first stay.

    Bits of sizes are in the order of the sizes, and the border's are found from the highest down, two at a time: the
    largest number that at least so many reach. What is no number counts as largest.
    """
    neuron = tl.arange(0, ROOM)
    value_ptr += tl.program_id(0).to(tl.int64) * NEURONS
    values = tl.load(value_ptr + neuron, mask=neuron < NEURONS, other=0.0)
    bits = tl.where(neuron < NEURONS, tl.abs(values).to(tl.int32, bitcast=True), -1)
    highest = tl.sum((bits >= (1 << 30)).to(tl.int32), axis=0)
    border = (highest >= COUNT).to(tl.int32) << 30
    for step in range(0, 15):
        shift = 28 - 2 * step
        digit = tl.full([], 1, tl.int32) << shift
        # Three counts in one sum, in 20 bits each.
        reach = (bits >= border + digit).to(tl.int64)
        reach += (bits >= border + 2 * digit).to(tl.int64) << 20
        reach += (bits >= border + 3 * digit).to(tl.int64) << 40
        counts = tl.sum(reach, axis=0)
        digits = ((counts & 0xFFFFF) >= COUNT).to(tl.int32)
        digits += (((counts >> 20) & 0xFFFFF) >= COUNT).to(tl.int32)
        digits += ((counts >> 40) >= COUNT).to(tl.int32)
        border += digits * digit
    ties = (bits == border).to(tl.int32)
    left = COUNT - tl.sum((bits > border).to(tl.int32), axis=0)
    keep = bits >= border
    if tl.sum(ties, axis=0) > left:
        keep = (bits > border) | ((ties > 0) & (tl.cumsum(ties, axis=0) <= left))
    tl.store(value_ptr + neuron, tl.where(keep, values, 0.0), mask=neuron < NEURONS)


@kernel
def _weighted(
    value_ptr: tl.tensor, part_ptr: tl.tensor, out_ptr: tl.tensor,
    NEURONS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, PIECE: tl.constexpr,
) -> None:
    """Add up the output rows of a block of neurons for one token, where the value is not zero."""
    token = tl.program_id(0).to(tl.int64)
    neuron = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(value_ptr + token * NEURONS + neuron, mask=neuron < NEURONS, other=0.0)
    place = (token * tl.num_programs(1) + tl.program_id(1)) * WIDTH
    _add_up(part_ptr + place, out_ptr, neuron, values != 0.0, values, WIDTH, PIECE)


@kernel
def _sums(
    part_ptr: tl.tensor, y_ptr: tl.tensor, bias_ptr: tl.tensor,
    PARTS: tl.constexpr, WIDTH: tl.constexpr, BIASED: tl.constexpr, ROOM: tl.constexpr, COLUMNS: tl.constexpr,
) -> None:
    """Add the sums of all blocks for some columns of one token."""
    token = tl.program_id(0).to(tl.int64)
    dim, row = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, ROOM)
    part_ptr += token * PARTS * WIDTH
    total = tl.zeros([ROOM, COLUMNS], tl.float32)
    for start in tl.static_range(0, PARTS, ROOM):
        mask = (start + row < PARTS)[:, None] & (dim < WIDTH)[None, :]
        total += tl.load(part_ptr + (start + row)[:, None] * WIDTH + dim[None, :], mask=mask, other=0.0)
    y = tl.sum(total, axis=0)
    if BIASED:
        y += tl.load(bias_ptr + dim, mask=dim < WIDTH, other=0.0).to(tl.float32)
    tl.store(y_ptr + token * WIDTH + dim, y.to(y_ptr.dtype.element_ty), mask=dim < WIDTH)
# fmt: on


@kernel
def _dots(
    x_ptr: tl.tensor,
    rows: tl.tensor,
    neuron: tl.tensor,
    passes: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    PIECE: tl.constexpr,
) -> Any:
    """Multiply a token with the rows of neurons that pass; the others are not read and give zero."""
    total = tl.zeros([BLOCK, PIECE], tl.float32)
    for start in tl.static_range(0, WIDTH, PIECE):
        dim = start + tl.arange(0, PIECE)
        x = tl.load(x_ptr + dim, mask=dim < WIDTH, other=0.0).to(tl.float32)
        mask = passes[:, None] & (dim < WIDTH)[None, :]
        read = tl.load(rows + neuron[:, None] * WIDTH + dim[None, :], mask=mask, other=0.0).to(tl.float32)
        total += read * x[None, :]
    return tl.sum(total, axis=1)


@kernel
def _add_up(
    part_ptr: tl.tensor,
    rows: tl.tensor,
    neuron: tl.tensor,
    passes: tl.tensor,
    values: tl.tensor,
    WIDTH: tl.constexpr,
    PIECE: tl.constexpr,
) -> None:
    """Store the sum of the rows of neurons that pass, each times its value."""
    factors = tl.where(passes, values, 0.0)
    for start in tl.static_range(0, WIDTH, PIECE):
        dim = start + tl.arange(0, PIECE)
        mask = passes[:, None] & (dim < WIDTH)[None, :]
        read = tl.load(rows + neuron[:, None] * WIDTH + dim[None, :], mask=mask, other=0.0).to(tl.float32)
        tl.store(part_ptr + dim, tl.sum(read * factors[:, None], axis=0), mask=dim < WIDTH)
