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
CACHED = 1 << 16
"""Weights searched at once: what a processor's cache holds with all that is derived from them."""
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
        return (steps * self.scales.float().unsqueeze(-1)).flatten(1)

    def where(self, rows: Tensor, other: Rounded) -> Rounded:
        """These codes in the rows where the bool tensor `rows` holds, the other's elsewhere."""
        mask = rows.unsqueeze(1)
        return Rounded(
            codes=torch.where(mask, self.codes, other.codes), scales=torch.where(mask, self.scales, other.scales)
        )


def _blocked(matrix: Tensor) -> Tensor:
    """The blocks [..., columns / 32, 32] of [..., columns]."""
    return matrix.reshape(*matrix.shape[:-1], -1, BLOCK)


def _half(scales: Tensor) -> Tensor:
    """Scales as the file stores them, back in fp32."""
    return scales.half().float()


def _codes(blocks: Tensor, scales: Tensor) -> Tensor:
    """Nearest codes 0-15, as fp32, of [..., 32] for scales [...]; a zero scale gives the zero code."""
    inverse = torch.where(scales == 0, 0.0, 1 / scales).unsqueeze(-1)
    return torch.floor(blocks * inverse + (ZERO + 0.5)).clamp_(0, LEVELS - 1)


def nearest(weight: Tensor) -> Rounded:
    """The rule of ggml itself: the weight of largest magnitude falls on code 0, the others on the nearest code."""
    blocks = _blocked(weight.float())
    peak = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True)).squeeze(-1)
    scales = peak / -ZERO
    return Rounded(codes=_codes(blocks, scales).to(torch.uint8).flatten(1), scales=scales.half())


def searched(weight: Tensor, importance: Tensor | None = None) -> Rounded:
    """Scales that minimize each block's squared error, weighted by how much each column matters.

    Puts the peak of a block on 15 places of the grid, at either end, refits the scale in closed form to the codes that
    follow, and keeps the best, or plain rounding where that is better.

    Args:
        weight: [rows, columns], columns a multiple of 32.
        importance: fp32 [columns], e.g. mean squared inputs; None counts all columns alike.
    """
    ones = torch.ones(weight.shape[1], device=weight.device) if importance is None else importance
    rows = max(1, CACHED // weight.shape[1]) if weight.device.type == "cpu" else len(weight)
    parts = [_search(part, ones.float()) for part in torch.split(weight.float(), rows)]
    return Rounded(codes=torch.cat([part.codes for part in parts]), scales=torch.cat([part.scales for part in parts]))


def _search(weight: Tensor, importance: Tensor) -> Rounded:
    """With q the codes less 8, the best scale s = sum(a w q) / sum(a q^2) lowers the error by s sum(a w q)."""
    blocks, weights = _blocked(weight), _blocked(importance)
    plain = nearest(weight)
    peak = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True)).squeeze(-1)
    weighted = blocks * weights
    most = torch.full_like(peak, -1.0)
    steps = torch.zeros_like(blocks)
    for place in PLACES:
        found = _codes(blocks, peak / place).sub_(ZERO)
        top, bottom = (weighted * found).sum(-1), (weights * found * found).sum(-1)
        gain = top * top / bottom.clamp_min(1e-30)
        better = gain > most
        most = torch.where(better, gain, most)
        steps = torch.where(better.unsqueeze(-1), found, steps)
    scales = _fitted_scales(blocks, steps + ZERO, weights)
    codes = _codes(blocks, scales)
    known = _blocked(plain.codes).float()
    worse = _block_errors(blocks, codes, scales, weights) > _block_errors(blocks, known, plain.scales.float(), weights)
    codes = torch.where(worse.unsqueeze(-1), known, codes)
    scales = torch.where(worse, plain.scales.float(), scales)
    return Rounded(codes=codes.to(torch.uint8).flatten(1), scales=scales.half())


def _fitted_scales(blocks: Tensor, codes: Tensor, weights: Tensor) -> Tensor:
    """The weighted least-squares scale of given codes."""
    steps = codes - ZERO
    top, bottom = (weights * blocks * steps).sum(-1), (weights * steps * steps).sum(-1)
    return _half(torch.where(bottom > 0, top / bottom.clamp_min(1e-30), 0.0))


def _block_errors(blocks: Tensor, codes: Tensor, scales: Tensor, weights: Tensor) -> Tensor:
    return (weights * (blocks - (codes - ZERO) * scales.unsqueeze(-1)).square()).sum(-1)


def row_errors(weight: Tensor, rounded: Rounded, gram: Tensor) -> Tensor:
    """Squared error of each output on the calibration text, (w - w') G (w - w')^T, fp32 [rows]."""
    gap = weight.float() - rounded.values()
    return ((gap @ gram.float()) * gap).sum(1)


def compensated(weight: Tensor, gram: Tensor, *, damping: float = 0.01) -> Rounded:
    """GPTQ in blocks (Frantar et al. 2023, algorithm 1): each column's error is made good by the columns after it.

    With H = G + damping x mean diagonal and U the upper Cholesky factor of its inverse, rounding column i by e moves
    every later column j by -e U[i, j] / U[i, i]. A block's scale is searched when the block is reached, on the
    weights as they are then, each column weighted by 1 / U[i, i]^2, what its error costs after compensation. Rows
    that come out worse on G than with searched scales keep those, so no row is worse than plainly rounded.

    Args:
        weight: [rows, columns], columns a multiple of 32.
        gram: G = X^T X (or its mean) of the inputs, [columns, columns].
        damping: added to the diagonal, as a fraction of its mean.
    """
    factor = _inverse_factor(gram, damping).to(weight.device)
    left = weight.float().clone()
    codes, scales = torch.empty_like(left, dtype=torch.uint8), left.new_empty(len(left), left.shape[1] // BLOCK)
    diagonal = factor.diagonal()
    for start in range(0, left.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        scale = searched(left[:, block], diagonal[block].square().reciprocal()).scales.float()
        codes[:, block], errors = _round_block(left[:, block], scale.squeeze(1), factor[block, block])
        left[:, block.stop :] -= errors @ factor[block, block.stop :]
        scales[:, start // BLOCK] = scale.squeeze(1)
    found = Rounded(codes=codes, scales=scales.half())
    return best(weight, gram, found, searched(weight, gram.diagonal()), nearest(weight))


def _round_block(block: Tensor, scale: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Round one block column by column; codes and scaled errors, both [rows, 32]."""
    block = block.clone()
    codes, errors = torch.empty_like(block), torch.empty_like(block)
    for column in range(BLOCK):
        code = _codes(block[:, column : column + 1], scale).squeeze(1)
        error = (block[:, column] - (code - ZERO) * scale) / factor[column, column]
        block[:, column + 1 :] -= error.unsqueeze(1) * factor[column, column + 1 :]
        codes[:, column], errors[:, column] = code, error
    return codes.to(torch.uint8), errors


def _inverse_factor(gram: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor U of (G + damping x mean diagonal x I)^-1 = U^T U, fp32."""
    device = gram.device if gram.device.type != "mps" else torch.device("cpu")
    matrix = gram.to(device, torch.float64)
    scale = matrix.diagonal().mean().clamp_min(1e-30)
    matrix = matrix + damping * scale * torch.eye(len(matrix), dtype=torch.float64, device=device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()


def best(weight: Tensor, gram: Tensor, *choices: Rounded) -> Rounded:
    """For each row the choice with the least error on G."""
    chosen, least = choices[0], row_errors(weight, choices[0], gram)
    for other in choices[1:]:
        error = row_errors(weight, other, gram)
        chosen, least = other.where(error < least, chosen), torch.minimum(error, least)
    return chosen
