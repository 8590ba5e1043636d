"""Blends: averages of the weights of two models, of which one was trained from the other.

A tuned parent knows the domain's own sources better than the parent does, and the parent knows everything else better.
An average of their weights lies near the better one on both kinds of text (Wortsman et al. 2022, WiSE-FT):

    w = (1 - share) w_tuned + share w_parent
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from minigpt.errors import MiniGPTError


@torch.no_grad()
def blend_weights(model: Any, other: Any, share: float) -> None:
    """Move the weights of a model toward those of another model of the same shape, in place.

    Args:
        model: the model that is changed; its weights keep their precision and device.
        other: the model that `share` of the weights is taken from.
        share: between 0, which changes nothing, and 1, which copies the other model.

    Raises:
        MiniGPTError: the models have different weights.
    """
    if not share:
        return
    ours, other_weights = model.state_dict(), other.state_dict()
    if _shapes(ours) != _shapes(other_weights):
        raise MiniGPTError("Only models of the same shape can be blended; blend a parent with its own tuned form.")
    blended: set[int] = set()
    for name, tensor in ours.items():
        # A tied weight stands under two names and must move only once.
        if tensor.is_floating_point() and tensor.data_ptr() not in blended:
            blended.add(tensor.data_ptr())
            tensor.copy_(torch.lerp(tensor.float(), other_weights[name].to(tensor.device).float(), share))


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight by its name."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
