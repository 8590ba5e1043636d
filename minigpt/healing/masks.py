"""Training of a part of the weights: a mask says which weights a run may change, and all others keep their values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.errors import ConfigError
from minigpt.healing.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """The weights that a run may change.

    Attributes:
        free: for each parameter's name a boolean tensor of its shape, true where the weight may change.
        trains_others: whether parameters that are not named may change; if not, they keep all of their values.
    """

    free: Mapping[str, Tensor]
    trains_others: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of names, positions and the rest, which names the mask in a checkpoint."""
        hasher = hashlib.sha256()
        for name in sorted(self.free):
            hasher.update(name.encode() + self.free[name].detach().cpu().contiguous().numpy().tobytes())
        hasher.update(bytes([self.trains_others]))
        return hasher.hexdigest()


class Freeze:
    """Keeper of the weights that a mask excludes: it clears their gradients and undoes what an optimizer does to them.

    The gradients are cleared on the fp32 parameters, behind the captured graph of a step, which is the same with and
    without a mask. AdamW without weight decay leaves a weight alone whose gradient was always zero; other optimizers
    move it, so their steps are undone from a copy.

    Args:
        model: the model that is trained.
        mask: the weights that may change, or None for all.
        recipe: the run's settings.

    Raises:
        ConfigError: the recipe trains adapters, or the mask does not fit the model.
    """

    def __init__(self, model: Any, mask: Mask | None, recipe: Recipe) -> None:
        self.free: list[tuple[Tensor, Tensor]] = []
        self.kept: list[Tensor] = []
        if mask is None:
            return
        if recipe.adapter != "full":
            raise ConfigError(f'A mask needs a recipe with adapter "full", not {recipe.adapter!r}.')
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        if strange := mask.free.keys() - named.keys():
            raise ConfigError(f"The mask names {min(strange)}, which the model does not have.")
        for name, parameter in named.items():
            if name not in mask.free and mask.trains_others:
                continue
            free = mask.free.get(name)
            free = torch.zeros((), dtype=torch.bool) if free is None else free
            if free.ndim and free.shape != parameter.shape:
                raise ConfigError(
                    f"The mask of {name} has the shape {tuple(free.shape)}, not {tuple(parameter.shape)}."
                )
            self.free.append((parameter, free.to(parameter.device)))
        if recipe.optimizer != "adamw" or recipe.weight_decay:
            self.kept = [parameter.detach().masked_fill(free, 0) for parameter, free in self.free]

    @torch.no_grad()
    def clear_gradients(self) -> None:
        """Set the gradients of the excluded weights to zero, before the gradient's norm is taken."""
        for parameter, free in self.free:
            if parameter.grad is not None:
                parameter.grad.mul_(free)

    @torch.no_grad()
    def restore(self) -> None:
        """Give the excluded weights their values back after an optimizer's step; the others stay as they are."""
        for (parameter, free), kept in zip(self.free, self.kept, strict=False):
            torch.where(free, parameter, kept, out=parameter.data)
