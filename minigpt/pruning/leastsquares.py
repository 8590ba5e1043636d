"""Algebra of the repair: ridge regression toward the present weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minigpt.errors import MiniGPTError


def default_ridge(kept: int, tokens: int) -> float:
    """Return the ridge for a sample of this size: 3 x kept inputs / tokens, between 0.01 and 3.

    A smaller sample needs a larger ridge, or the repair overfits and loses its gain. The rule follows the best values
    by held-out error; the optimum is flat.
    """
    return min(3.0, max(0.01, 3 * kept / max(tokens, 1)))


def ridge_solution(cross: Tensor, gram: Tensor, ridge: float) -> Tensor:
    """Solve `cross` (gram + ridge x mean diagonal x I)^-1 in double precision.

    Args:
        cross: the part of the target that the present weights miss, times the inputs, [outputs, kept].
        gram: Gram matrix of the kept inputs, [kept, kept], positive semidefinite.
        ridge: fraction of the mean diagonal; raised tenfold until the matrix is positive definite.

    Returns:
        The correction [outputs, kept], fp32; zero where the inputs are zero.

    Raises:
        MiniGPTError: a number is not finite, so that there is no solution.
    """
    device = gram.device if gram.device.type != "mps" else torch.device("cpu")
    matrix, right = gram.to(device, torch.float64, copy=True), cross.to(device, torch.float64)
    if not (math.isfinite(ridge) and bool(matrix.isfinite().all()) and bool(right.isfinite().all())):
        raise MiniGPTError(
            "The activations of the model are not finite, so its layers cannot be repaired. Use another parent or "
            "precision, or --set repair.when=never."
        )
    scale = matrix.diagonal().mean()
    if not bool(scale > 0):
        return torch.zeros_like(cross, dtype=torch.float32)
    diagonal = matrix.diagonal().clone()
    level = ridge
    while True:
        # In place, because copies of a matrix of this size decide how much memory a repair needs.
        matrix.diagonal().copy_(diagonal + level * scale)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not int(failed):
            return torch.cholesky_solve(right.T, factor).T.to(cross.device, torch.float32)
        level = max(level * 10, 1e-6)


def repaired_columns(weight: Tensor, kept: Tensor, gram: Tensor, ridge: float) -> Tensor:
    """Repair one layer alone: W' = W[:, K] + W[:, R] G[R, K] (G[K, K] + lambda I)^-1, R the removed columns.

    Args:
        weight: the original weights, [outputs, inputs].
        kept: int64 indices of the kept inputs.
        gram: G = X^T X over all inputs, [inputs, inputs].
        ridge: lambda as a fraction of the mean diagonal of G[K, K].
    """
    mask = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
    mask[kept] = False
    removed = mask.nonzero().squeeze(1)
    cross = weight[:, removed].double() @ gram[removed][:, kept].double()
    correction = ridge_solution(cross, gram[kept][:, kept], ridge)
    return (weight[:, kept].float() + correction).to(weight.dtype)
