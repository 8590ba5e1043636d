"""Muon: the matrices of the decoder move along the nearest semi-orthogonal matrix of their momentum, the rest by AdamW.

Jordan et al. 2024 (the Newton-Schulz iteration and its coefficients); the step is scaled as Liu et al. 2025 (Moonlight,
section 2.2) do, so that its root mean square is that of AdamW and one learning rate serves both. `torch.optim.Muon`
takes one matrix at a time, which for a small model of many layers is thousands of kernel launches a step; here all
matrices of a shape go through the iteration together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.healing.recipe import Recipe
from minigpt.machine import has_fast_bf16
from minigpt.transformer.arch import decoder_layers

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95
ROOT_MEAN_SQUARE = 0.2
BETAS = (0.9, 0.95)
TOGETHER = 1 << 27
"""Elements that are orthogonalized at once: half a gigabyte in float32, a few times that on the way."""


def optimizer_for(model: Any, parameters: Sequence[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over `parameters` of `model`."""
    if recipe.optimizer == "adamw" or recipe.adapter != "full":
        return _adamw(parameters, recipe)
    ours = {id(parameter) for parameter in parameters}
    matrices = [each for each in decoder_layers(model).parameters() if each.ndim == 2 and id(each) in ours]
    taken = {id(matrix) for matrix in matrices}
    return Muon(matrices, [each for each in parameters if id(each) not in taken], recipe)


def _adamw(parameters: Sequence[nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=BETAS, weight_decay=recipe.weight_decay, fused=True
    )


class Muon(torch.optim.Optimizer):
    """Muon over `matrices`, AdamW over `others`; both follow the learning rate of the parameter groups."""

    def __init__(self, matrices: Sequence[nn.Parameter], others: Sequence[nn.Parameter], recipe: Recipe) -> None:
        groups = [{"params": list(matrices)}, {"params": list(others)}]
        super().__init__(groups, {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay})
        self.adamw = _adamw(others, recipe)
        self.adamw.state = self.state
        self.stacks: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            self.stacks.setdefault(tuple(matrix.shape), []).append(matrix)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient.

        Args:
            closure: not supported; None.
        """
        self.adamw.param_groups[0]["lr"] = self.param_groups[1]["lr"]
        self.adamw.step()
        rate, decay = self.param_groups[0]["lr"], self.param_groups[0]["weight_decay"]
        for shape, moving in self._together():
            gradients = [each.grad.float() for each in moving if each.grad is not None]
            momenta = [self._momentum(each) for each in moving]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
            scale = -rate * ROOT_MEAN_SQUARE * max(shape) ** 0.5
            update = orthogonalized(torch.stack(ahead)).mul_(scale)
            values = [each.data for each in moving]
            if decay:
                torch._foreach_mul_(values, 1 - rate * decay)
            torch._foreach_add_(values, list(update.to(values[0].dtype).unbind()))

    def _together(self) -> Iterator[tuple[tuple[int, ...], list[nn.Parameter]]]:
        """Matrices of a shape that have gradients, as many at a time as `TOGETHER` elements allow."""
        for shape, members in self.stacks.items():
            moving = [each for each in members if each.grad is not None]
            size = max(1, TOGETHER // math.prod(shape))
            yield from ((shape, moving[start : start + size]) for start in range(0, len(moving), size))

    def _momentum(self, matrix: nn.Parameter) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix, dtype=torch.float32)
        found: Tensor = state["momentum_buffer"]
        return found


def orthogonalized(matrices: Tensor) -> Tensor:
    """About U V' of each matrix U S V': five Newton-Schulz steps that bring all singular values into 0.7-1.2.

    Args:
        matrices: [n, rows, columns].

    Returns:
        The same shape, float32; arithmetic in bf16 where the hardware is fast at it.
    """
    dtype = torch.bfloat16 if has_fast_bf16(matrices.device) else torch.float32
    a, b, c = COEFFICIENTS
    wide = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = (wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    found: Tensor = x.float()
    return found.mT if matrices.shape[1] > matrices.shape[2] else found
