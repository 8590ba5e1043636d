"""Weights that a run must leave as they are: those outside of a mask keep the values that they start with.

A pruned weight starts at zero and stays there; a weight of the parent stays the parent's, bit by bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import ConfigError


class Frozen:
    """Parameters of which a part is trained.

    Optimizers move a weight without a gradient, too (weight decay, or Muon's orthogonal steps), so that its value is
    put back after every step. Gradients outside of the masks are dropped before they are clipped.

    Args:
        model: the model that is trained.
        masks: for the name of a parameter the weights of it that are trained, true or false in its shape.

    Raises:
        ConfigError: the model has no such parameter of this shape that is trained.
    """

    def __init__(self, model: Any, masks: Mapping[str, Tensor]) -> None:
        known = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        if strange := [name for name, mask in masks.items() if name not in known or known[name].shape != mask.shape]:
            raise ConfigError(f"The mask of {strange[0]} fits no trained weight of the model; masks need adapter=full.")
        self.parameters: list[nn.Parameter] = [known[name] for name in masks]
        self.masks = [mask.to(known[name].device) for name, mask in masks.items()]
        # Most frozen weights are zeros, of which no copy is needed.
        values = [p.detach() * ~mask for p, mask in zip(self.parameters, self.masks, strict=True)]
        self.values = [value if bool(value.any()) else None for value in values]

    @torch.no_grad()
    def drop_gradients(self) -> None:
        """Set the gradients of frozen weights to zero."""
        for parameter, mask in zip(self.parameters, self.masks, strict=True):
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    @torch.no_grad()
    def restore(self) -> None:
        """Put frozen weights back to the values that they started with."""
        for parameter, mask, value in zip(self.parameters, self.masks, self.values, strict=True):
            if value is None:
                parameter.masked_fill_(~mask, 0.0)
            else:
                torch.where(mask, parameter, value, out=parameter.data)


def masks_digest(masks: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of masks, which names a run that trains under them."""
    hasher = hashlib.sha256()
    for name in sorted(masks):
        hasher.update(f"{name}{tuple(masks[name].shape)}".encode() + masks[name].cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()
