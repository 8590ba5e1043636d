"""Four-bit rounding of one matrix in blocks of 32: to the nearest code, with searched scales, or with compensation.

All three use the grid of ggml's Q4_0, w' = scale x (code - 8) with a 16-bit scale for each 32 weights of a row, so any
runtime of that format (or of ONNX's symmetric block format) reads them. They differ in how well they choose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.exporting.formats import BLOCK
from minigpt.transformer.grams import inverse_factor

# Number of codes, and the code that stands for zero.
LEVELS = 16
ZERO = 8
# Rows rounded at once on a CPU. A block of so many rows fits the processor's cache, and is small enough for torch to
# work on it in one thread; handing thousands of small steps to several threads is slow where the cores are busy.
ROWS_AT_ONCE = 960
# Columns after which errors are passed on to the rest of the matrix, in one product (GPTQ, section 3.3, step 2).
LAZY_COLUMNS = 128
# Fraction of its mean that is added to the diagonal of a Gram matrix; chosen by bits per byte on dev text.
DAMPING = 0.003
# Places on the grid where the search puts the largest weight of a block to begin with.
PLACES = (-8.0, -7.25, -7.5, -7.75, -8.25, -8.5, -9.0, 6.5, 6.75, 7.0, 7.25, 7.5, 7.75, 8.0, 8.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedMatrix:
    """A matrix [rows, columns] in blocks of 32 weights.

    Attributes:
        codes: uint8 0-15 [rows, columns].
        scales: float16 [rows, columns / 32].
    """

    codes: Tensor
    scales: Tensor

    def values(self) -> Tensor:
        """Compute the weights that a runtime multiplies with: fp32 [rows, columns]."""
        steps = _to_blocks(self.codes.float()) - ZERO
        weights: Tensor = (steps * self.scales.float().unsqueeze(-1)).flatten(1)
        return weights

    def where(self, rows: Tensor, other: RoundedMatrix) -> RoundedMatrix:
        """Combine two matrices: rows of this one where the bool tensor `rows` is true, of the other elsewhere."""
        mask = rows.unsqueeze(1)
        return RoundedMatrix(
            codes=torch.where(mask, self.codes, other.codes), scales=torch.where(mask, self.scales, other.scales)
        )

    def split(self, rows: list[int]) -> list[RoundedMatrix]:
        """Cut the matrix into matrices with these numbers of rows, from top to bottom."""
        parts = zip(torch.split(self.codes, rows), torch.split(self.scales, rows), strict=True)
        return [RoundedMatrix(codes=codes, scales=scales) for codes, scales in parts]


def _to_blocks(matrix: Tensor) -> Tensor:
    """View a matrix [rows, columns] as blocks [rows, columns / 32, 32]."""
    return matrix.reshape(len(matrix), -1, BLOCK)


def round_nearest(weight: Tensor) -> RoundedMatrix:
    """Round a matrix as ggml does: the largest weight of a block falls on code 0, the others on the nearest code."""
    blocks = _to_blocks(weight.float())
    scales = _peak(blocks, -1) / -ZERO
    return RoundedMatrix(codes=_codes(blocks, scales.unsqueeze(-1)).to(torch.uint8).flatten(1), scales=scales.half())


def round_searched(weight: Tensor, importance: Tensor | None = None) -> RoundedMatrix:
    """Round with the scales that minimize each block's squared error, weighted by how much each column matters.

    The search puts the largest weight of a block on each of `PLACES`, refits the scale in closed form to the codes that
    follow, and keeps the best scale, or that of plain rounding where it is better.

    Args:
        weight: [rows, columns], columns a multiple of 32.
        importance: fp32 [columns], e.g. mean squared inputs; None counts all columns alike.
    """
    ones = torch.ones(weight.shape[1], device=weight.device) if importance is None else importance.float()
    return stack_rows([_search(part.float(), ones) for part in torch.split(weight, _rows_at_once(weight))])


def _search(weight: Tensor, importance: Tensor) -> RoundedMatrix:
    """Search the scales of all blocks of some rows."""
    columns = weight.T.contiguous()
    blocks = list(zip(torch.split(columns, BLOCK), torch.split(importance, BLOCK), strict=True))
    scales = [best_scale(block, weights) for block, weights in blocks]
    codes = [_codes(block, scale) for (block, _), scale in zip(blocks, scales, strict=True)]
    return RoundedMatrix(codes=torch.cat(codes).T.to(torch.uint8), scales=torch.stack(scales, 1).half())


def _rows_at_once(weight: Tensor) -> int:
    """Return the number of rows to round at once on the matrix's device."""
    return ROWS_AT_ONCE if weight.device.type == "cpu" else len(weight)


def stack_rows(parts: list[RoundedMatrix]) -> RoundedMatrix:
    """Stack matrices with the same columns below each other."""
    return RoundedMatrix(
        codes=torch.cat([part.codes for part in parts]), scales=torch.cat([part.scales for part in parts])
    )


def best_scale(block: Tensor, importance: Tensor) -> Tensor:
    """Find the best scale of each block, see :func:`round_searched`.

    With q the codes less 8 and a the importance, the best scale s = sum(a w q) / sum(a q^2) lowers the error by
    s sum(a w q). Rows lie next to each other in memory, so that every step works on all of them at once.

    Args:
        block: [32, rows], one block a column.
        importance: fp32 [32], weight of the error of each place of the block.

    Returns:
        fp32 [rows], exact in 16 bits.
    """
    weights = importance.unsqueeze(1)
    weighted, peak = block * weights, _peak(block, 0)
    most, best = torch.full_like(peak, -1.0), torch.zeros_like(peak)
    for place in PLACES:
        steps = _codes(block, peak / place).sub_(ZERO)
        top, bottom = (weighted * steps).sum(0), steps.square_().mul_(weights).sum(0).clamp_min_(1e-30)
        scale = top / bottom
        gain = scale * top
        better = gain > most
        most, best = torch.where(better, gain, most), torch.where(better, scale, best)
    best, plain = _half(best), _half(peak / -ZERO)
    return torch.where(_error(block, best, weights) > _error(block, plain, weights), plain, best)


def _error(block: Tensor, scale: Tensor, weights: Tensor) -> Tensor:
    """Compute the weighted squared error of each block with this scale."""
    return (weights * (block - (_codes(block, scale) - ZERO) * scale).square()).sum(0)


def _peak(blocks: Tensor, axis: int) -> Tensor:
    """Return the weight of largest magnitude along an axis, with its sign."""
    return blocks.gather(axis, blocks.abs().argmax(axis, keepdim=True)).squeeze(axis)


def _half(scales: Tensor) -> Tensor:
    """Round scales to 16 bits as a file stores them, and return them in fp32."""
    return scales.half().float()


def _codes(weights: Tensor, scales: Tensor) -> Tensor:
    """Return the nearest codes 0-15 as fp32, for scales that broadcast; a zero scale gives the zero code."""
    inverse = torch.where(scales == 0, 0.0, 1 / scales)
    return (weights * inverse).add_(ZERO + 0.5).floor_().clamp_(0, LEVELS - 1)


def row_errors(weight: Tensor, rounded: RoundedMatrix, gram: Tensor) -> Tensor:
    """Compute the squared error of each output on the calibration text, (w - w') G (w - w')^T.

    Args:
        weight: the original [rows, columns].
        rounded: the matrix rounded.
        gram: Gram matrix G of the inputs, [columns, columns].

    Returns:
        fp32 [rows].
    """
    gap = weight.float() - rounded.values()
    return ((gap @ gram.float()) * gap).sum(1)


def round_compensated(weight: Tensor, gram: Tensor, *, damping: float = DAMPING) -> RoundedMatrix:
    """Round with error compensation: later columns make up for the error of each column.

    This is GPTQ in blocks (Frantar et al. 2023, algorithm 1). With H = G + damping x mean diagonal and U the upper
    Cholesky factor of its inverse, rounding column i by e moves every later column j by -e U[i, j] / U[i, i]. The scale
    of a block is searched when the block is reached, on the weights as they are then. There each column is weighted by
    1 / U[i, i]^2, the cost of its error after compensation. Rows with a larger error on G than plain rounding gives are
    rounded with searched scales, or plainly.

    Rows do not depend on each other, so matrices with the same inputs are best stacked and rounded as one.

    Args:
        weight: [rows, columns], columns a multiple of 32.
        gram: G = X^T X (or its mean) of the inputs, [columns, columns].
        damping: added to the diagonal, as a fraction of its mean.
    """
    factor = inverse_factor(gram, damping).to(weight.device)
    rounded = stack_rows([_compensate(part.float(), factor) for part in torch.split(weight, _rows_at_once(weight))])
    return _not_worse_than_plain(weight, gram, rounded)


def _compensate(weight: Tensor, factor: Tensor) -> RoundedMatrix:
    """Round some rows with error compensation, given the factor of :func:`minigpt.transformer.grams.inverse_factor`."""
    left, importance = weight.T.contiguous(), factor.diagonal().square().reciprocal()
    errors, codes = torch.empty_like(left), torch.empty_like(left, dtype=torch.uint8)
    scales = left.new_empty(len(left) // BLOCK, left.shape[1])
    for start in range(0, len(left), LAZY_COLUMNS):
        stop = min(start + LAZY_COLUMNS, len(left))
        for first in range(start, stop, BLOCK):
            block, last = slice(first, first + BLOCK), first + BLOCK
            scales[first // BLOCK] = scale = best_scale(left[block], importance[block])
            codes[block] = _round_block(left[block], scale, factor[block, block], errors[block])
            left[last:stop].addmm_(factor[block, last:stop].T, errors[block], alpha=-1)
        left[stop:].addmm_(factor[start:stop, stop:].T, errors[start:stop], alpha=-1)
    return RoundedMatrix(codes=codes.T, scales=scales.T.half())


def _round_block(block: Tensor, scale: Tensor, factor: Tensor, errors: Tensor) -> Tensor:
    """Round the 32 columns of one block [32, rows] one by one, in place, and fill in their scaled `errors`.

    Returns:
        The codes, uint8 [32, rows].
    """
    codes = torch.empty_like(block)
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    for column, (step, pull) in enumerate(zip(factor.diagonal().tolist(), factor, strict=True)):
        code = torch.addcmul(block.new_tensor(ZERO + 0.5), block[column], inverse).floor_().clamp_(0, LEVELS - 1)
        errors[column] = (block[column] - (code - ZERO) * scale).div_(step)
        block[column + 1 :].addr_(pull[column + 1 :], errors[column], alpha=-1)
        codes[column] = code
    return codes.to(torch.uint8)


def _not_worse_than_plain(weight: Tensor, gram: Tensor, rounded: RoundedMatrix) -> RoundedMatrix:
    """Replace each row by searched or plain rounding where that does better on G.

    Nothing is searched unless plain rounding does better in some row.
    """
    least, plain = row_errors(weight, rounded, gram), round_nearest(weight)
    if not (row_errors(weight, plain, gram) < least).any():
        return rounded
    for other in (round_searched(weight, gram.diagonal()), plain):
        error = row_errors(weight, other, gram)
        rounded, least = other.where(error < least, rounded), torch.minimum(error, least)
    return rounded
