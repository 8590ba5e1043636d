"""Healing: gentle tuning of a parent, and training that gives a pruned model back what it lost.

The public names are imported on first use, so that reading a recipe does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigpt.heal.data import Bound, TokenText
    from minigpt.heal.forward import bits_per_byte
    from minigpt.heal.recipe import Recipe
    from minigpt.heal.teacher import Teacher
    from minigpt.heal.training import Found, prolong, search, steps_for, train

_HOMES = {
    "Bound": "minigpt.heal.data",
    "Found": "minigpt.heal.training",
    "Recipe": "minigpt.heal.recipe",
    "Teacher": "minigpt.heal.teacher",
    "TokenText": "minigpt.heal.data",
    "bits_per_byte": "minigpt.heal.forward",
    "prolong": "minigpt.heal.training",
    "search": "minigpt.heal.training",
    "steps_for": "minigpt.heal.training",
    "train": "minigpt.heal.training",
}

__all__ = [
    "Bound",
    "Found",
    "Recipe",
    "Teacher",
    "TokenText",
    "bits_per_byte",
    "prolong",
    "search",
    "steps_for",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
