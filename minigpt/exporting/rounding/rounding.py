"""Four-bit rounding of a matrix in blocks of 32: plainly, with searched scales, and with error compensation.

All three give the grid of ggml's Q4_0, w' = scale x (code - 8) with a 16-bit scale for each 32 weights of a row, so
any runtime of that format (or of ONNX's symmetric block format) reads them; they differ in how well they choose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32
LEVELS = 16
ZERO = 8
ROWS = 960
"""Rows worked on at once on a CPU: a block of them is small enough for its cache, and for torch to leave it to one
thread. Handing thousands of such small steps to several threads takes many times as long if the cores are busy."""
LAZY = 128
"""Columns after which errors are passed on to the rest of the matrix, in one product (GPTQ, section 3.3, step 2)."""
DAMPING = 0.003
"""Bits per byte over fp32 of a 50 % specialist on its dev text, 8,192 calibration tokens: 1.0302 with 0.1, 1.0266 with
0.03, 1.0234 with 0.01, 1.0216 with 0.003, 1.0239 with 0.001, 1.0230 with 0.0003; plain rounding 1.0559."""
PLACES = (-8.0, -7.25, -7.5, -7.75, -8.25, -8.5, -9.0, 6.5, 6.75, 7.0, 7.25, 7.5, 7.75, 8.0, 8.5)
"""Where on the grid the largest weight of a block is put to begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """A matrix [rows, columns] as `codes` uint8 0-15 [rows, columns] and `scales` float16 [rows, columns / 32]."""

    codes: Tensor
    scales: Tensor

    def values(self) -> Tensor:
        """The weights a runtime computes with, fp32 [rows, columns]."""
        steps = _blocked(self.codes.float()) - ZERO
        found: Tensor = (steps * self.scales.float().unsqueeze(-1)).flatten(1)
        return found

    def where(self, rows: Tensor, other: Rounded) -> Rounded:
        """These codes in the rows where the bool tensor `rows` holds, the other's elsewhere."""
        mask = rows.unsqueeze(1)
        return Rounded(
            codes=torch.where(mask, self.codes, other.codes), scales=torch.where(mask, self.scales, other.scales)
        )

    def split(self, rows: list[int]) -> list[Rounded]:
        """The matrices of so many rows that lie below each other in this one."""
        parts = zip(torch.split(self.codes, rows), torch.split(self.scales, rows), strict=True)
        return [Rounded(codes=codes, scales=scales) for codes, scales in parts]


def _blocked(matrix: Tensor) -> Tensor:
    """The blocks [rows, columns / 32, 32] of [rows, columns]."""
    return matrix.reshape(len(matrix), -1, BLOCK)


def nearest(weight: Tensor) -> Rounded:
    """The rule of ggml itself: the weight of largest magnitude falls on code 0, the others on the nearest code."""
    blocks = _blocked(weight.float())
    scales = _peak(blocks, -1) / -ZERO
    return Rounded(codes=_codes(blocks, scales.unsqueeze(-1)).to(torch.uint8).flatten(1), scales=scales.half())


def searched(weight: Tensor, importance: Tensor | None = None) -> Rounded:
    """Scales that minimize each block's squared error, weighted by how much each column matters.

    Puts the peak of a block on 15 places of the grid, at either end, refits the scale in closed form to the codes that
    follow, and keeps the best, or plain rounding where that is better.

    Args:
        weight: [rows, columns], columns a multiple of 32.
        importance: fp32 [columns], e.g. mean squared inputs; None counts all columns alike.
    """
    ones = torch.ones(weight.shape[1], device=weight.device) if importance is None else importance.float()
    return stacked([_search(part.float(), ones) for part in torch.split(weight, _rows_at_once(weight))])


def _search(weight: Tensor, importance: Tensor) -> Rounded:
    turned = weight.T.contiguous()
    blocks = list(zip(torch.split(turned, BLOCK), torch.split(importance, BLOCK), strict=True))
    scales = [best_scale(block, weights) for block, weights in blocks]
    codes = [_codes(block, scale) for (block, _), scale in zip(blocks, scales, strict=True)]
    return Rounded(codes=torch.cat(codes).T.to(torch.uint8), scales=torch.stack(scales, 1).half())


def _rows_at_once(weight: Tensor) -> int:
    return ROWS if weight.device.type == "cpu" else len(weight)


def stacked(parts: list[Rounded]) -> Rounded:
    """One matrix of these, below each other."""
    return Rounded(codes=torch.cat([part.codes for part in parts]), scales=torch.cat([part.scales for part in parts]))


def best_scale(block: Tensor, importance: Tensor) -> Tensor:
    """The scale of each column of [32, rows], one block a column: fp32 [rows], exact in 16 bits.

    With q the codes less 8, the best scale s = sum(a w q) / sum(a q^2) lowers the error by s sum(a w q). Rows run along
    the memory, so that every step works on all of them at once.
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
    return (weights * (block - (_codes(block, scale) - ZERO) * scale).square()).sum(0)


def _peak(blocks: Tensor, axis: int) -> Tensor:
    """The weight of largest magnitude along an axis, with its sign."""
    return blocks.gather(axis, blocks.abs().argmax(axis, keepdim=True)).squeeze(axis)


def _half(scales: Tensor) -> Tensor:
    """Scales as the file stores them, back in fp32."""
    return scales.half().float()


def _codes(weights: Tensor, scales: Tensor) -> Tensor:
    """Nearest codes 0-15, as fp32, for scales that broadcast; a zero scale gives the zero code."""
    inverse = torch.where(scales == 0, 0.0, 1 / scales)
    return (weights * inverse).add_(ZERO + 0.5).floor_().clamp_(0, LEVELS - 1)


def row_errors(weight: Tensor, rounded: Rounded, gram: Tensor) -> Tensor:
    """Squared error of each output on the calibration text, (w - w') G (w - w')^T, fp32 [rows]."""
    gap = weight.float() - rounded.values()
    return ((gap @ gram.float()) * gap).sum(1)


def compensated(weight: Tensor, gram: Tensor, *, damping: float = DAMPING) -> Rounded:
    """GPTQ in blocks (Frantar et al. 2023, algorithm 1): each column's error is made good by the columns after it.

    With H = G + damping x mean diagonal and U the upper Cholesky factor of its inverse, rounding column i by e moves
    every later column j by -e U[i, j] / U[i, i]. A block's scale is searched when the block is reached, on the
    weights as they are then, each column weighted by 1 / U[i, i]^2, what its error costs after compensation. Rows
    that come out worse on G than plainly rounded are rounded with searched scales, or plainly.

    Rows know nothing of each other: matrices with the same inputs are best given as one, below each other.

    Args:
        weight: [rows, columns], columns a multiple of 32.
        gram: G = X^T X (or its mean) of the inputs, [columns, columns].
        damping: added to the diagonal, as a fraction of its mean.
    """
    factor = _inverse_factor(gram, damping).to(weight.device)
    found = stacked([_compensate(part.float(), factor) for part in torch.split(weight, _rows_at_once(weight))])
    return _not_worse(weight, gram, found)


def _compensate(weight: Tensor, factor: Tensor) -> Rounded:
    left, importance = weight.T.contiguous(), factor.diagonal().square().reciprocal()
    errors, codes = torch.empty_like(left), torch.empty_like(left, dtype=torch.uint8)
    scales = left.new_empty(len(left) // BLOCK, left.shape[1])
    for start in range(0, len(left), LAZY):
        stop = min(start + LAZY, len(left))
        for first in range(start, stop, BLOCK):
            block, last = slice(first, first + BLOCK), first + BLOCK
            scales[first // BLOCK] = scale = best_scale(left[block], importance[block])
            codes[block] = _round_block(left[block], scale, factor[block, block], errors[block])
            left[last:stop].addmm_(factor[block, last:stop].T, errors[block], alpha=-1)
        left[stop:].addmm_(factor[start:stop, stop:].T, errors[start:stop], alpha=-1)
    return Rounded(codes=codes.T, scales=scales.T.half())


def _round_block(block: Tensor, scale: Tensor, factor: Tensor, errors: Tensor) -> Tensor:
    """Round the 32 columns of one block [32, rows] one by one, in place; their codes. Fills in the scaled `errors`."""
    codes = torch.empty_like(block)
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    for column, (step, pull) in enumerate(zip(factor.diagonal().tolist(), factor, strict=True)):
        code = torch.addcmul(block.new_tensor(ZERO + 0.5), block[column], inverse).floor_().clamp_(0, LEVELS - 1)
        errors[column] = (block[column] - (code - ZERO) * scale).div_(step)
        block[column + 1 :].addr_(pull[column + 1 :], errors[column], alpha=-1)
        codes[column] = code
    return codes.to(torch.uint8)


def _inverse_factor(gram: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor U of H^-1 = U^T U with H = G + damping x mean diagonal x I, fp32.

    With the order of the columns turned around, H = L L^T, so that U is the inverse of L, turned back.
    """
    device = gram.device if gram.device.type != "mps" else torch.device("cpu")
    turned = gram.to(device, torch.float64).flip(0, 1)
    scale = turned.diagonal().mean().clamp_min(1e-30)
    unit = torch.eye(len(turned), dtype=torch.float64, device=device)
    lower = torch.linalg.cholesky(turned + damping * scale * unit)
    factor: Tensor = torch.linalg.solve_triangular(lower, unit, upper=False).flip(0, 1).float()
    return factor


def _not_worse(weight: Tensor, gram: Tensor, found: Rounded) -> Rounded:
    """Where plain rounding does better on G, it or searched scales, whichever does best."""
    least, plain = row_errors(weight, found, gram), nearest(weight)
    if not (row_errors(weight, plain, gram) < least).any():
        return found
    for other in (searched(weight, gram.diagonal()), plain):
        error = row_errors(weight, other, gram)
        found, least = other.where(error < least, found), torch.minimum(error, least)
    return found
