"""Muon: an optimizer that moves weight matrices along the nearest semi-orthogonal matrix of their momentum.

The Newton-Schulz iteration and its coefficients are those of Jordan et al. 2024. The step is scaled as in Liu et al.
2025 (Moonlight, section 2.2), so that its root mean square is that of AdamW and one learning rate serves both. Muon
moves the matrices of the decoder layers, and AdamW everything else. `torch.optim.Muon` takes one matrix at a time,
which for a small model of many layers is thousands of kernel launches a step. Here all matrices of a shape go through
the iteration together.
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

# Coefficients of the Newton-Schulz polynomial (Jordan et al. 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# Newton-Schulz iterations of one step.
ITERATIONS = 5
# Decay of Muon's momentum.
MOMENTUM = 0.95
# Root mean square of a step relative to the learning rate, about that of AdamW (Liu et al. 2025).
ROOT_MEAN_SQUARE = 0.2
# Decays of AdamW's first and second moments.
BETAS = (0.9, 0.95)
# Most matrix elements that are orthogonalized at once (2 to the power of 27 take half a gigabyte in fp32), which bounds
# the memory of a step.
MAX_ELEMENTS = 1 << 27


def optimizer_for(model: Any, parameters: Sequence[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Make the recipe's optimizer.

    Args:
        model: the model that is trained.
        parameters: those of its parameters that are trained.
        recipe: names the optimizer, its learning rate and its weight decay; adapters always get AdamW.
    """
    if recipe.optimizer == "adamw" or recipe.adapter != "full":
        return _adamw(parameters, recipe)
    trained = {id(parameter) for parameter in parameters}
    in_layers = decoder_layers(model).parameters()
    matrices = [parameter for parameter in in_layers if parameter.ndim == 2 and id(parameter) in trained]
    taken = {id(matrix) for matrix in matrices}
    return Muon(matrices, [parameter for parameter in parameters if id(parameter) not in taken], recipe)


def _adamw(parameters: Sequence[nn.Parameter], recipe: Recipe) -> torch.optim.AdamW:
    """Make AdamW with the recipe's learning rate and weight decay."""
    return torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=BETAS, weight_decay=recipe.weight_decay, fused=True
    )


class Muon(torch.optim.Optimizer):
    """Muon for matrices and AdamW for the other parameters; both follow the learning rate of the parameter groups.

    Args:
        matrices: parameters with two dimensions, moved by Muon.
        others: parameters that AdamW moves.
        recipe: gives the learning rate and the weight decay.
    """

    def __init__(self, matrices: Sequence[nn.Parameter], others: Sequence[nn.Parameter], recipe: Recipe) -> None:
        groups = [{"params": list(matrices)}, {"params": list(others)}]
        super().__init__(groups, {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay})
        self.adamw = _adamw(others, recipe)
        self.adamw.state = self.state  # one state for both, so that a checkpoint finds all moments
        self.stacks: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            self.stacks.setdefault(tuple(matrix.shape), []).append(matrix)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient.

        Args:
            closure: not supported; must be None.
        """
        self.adamw.param_groups[0]["lr"] = self.param_groups[1]["lr"]
        self.adamw.step()
        rate, decay = self.param_groups[0]["lr"], self.param_groups[0]["weight_decay"]
        for shape, moving in self._moving_stacks():
            gradients = [matrix.grad.float() for matrix in moving if matrix.grad is not None]
            momenta = [self._momentum(matrix) for matrix in moving]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov's look ahead
            scale = -rate * ROOT_MEAN_SQUARE * max(shape) ** 0.5
            update = orthogonalize(torch.stack(ahead)).mul_(scale)
            values = [matrix.data for matrix in moving]
            if decay:
                torch._foreach_mul_(values, 1 - rate * decay)
            torch._foreach_add_(values, list(update.to(values[0].dtype).unbind()))

    def _moving_stacks(self) -> Iterator[tuple[tuple[int, ...], list[nn.Parameter]]]:
        """Yield each shape with its matrices that have gradients, at most `MAX_ELEMENTS` elements at a time."""
        for shape, members in self.stacks.items():
            moving = [matrix for matrix in members if matrix.grad is not None]
            size = max(1, MAX_ELEMENTS // math.prod(shape))
            yield from ((shape, moving[start : start + size]) for start in range(0, len(moving), size))

    def _momentum(self, matrix: nn.Parameter) -> Tensor:
        """Return the momentum of a matrix, fp32; it starts at zero."""
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix, dtype=torch.float32)
        momentum: Tensor = state["momentum_buffer"]
        return momentum


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return about U V' for each matrix U S V', by Newton-Schulz steps that bring all singular values into 0.7-1.2.

    Args:
        matrices: [n, rows, columns].

    Returns:
        [n, rows, columns] in fp32; the arithmetic is in bf16 where the hardware is fast at it.
    """
    dtype = torch.bfloat16 if has_fast_bf16(matrices.device) else torch.float32
    a, b, c = COEFFICIENTS
    wide = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = (wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(dtype)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: Tensor = x.float()
    return result.mT if matrices.shape[1] > matrices.shape[2] else result
