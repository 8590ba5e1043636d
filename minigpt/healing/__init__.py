"""Training of language models: tuning an unpruned parent, and healing a model after pruning.

The public names are imported on first use, so that reading a recipe does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigpt.healing.data import Bound, TokenText
    from minigpt.healing.forward import bits_per_byte
    from minigpt.healing.masks import Mask
    from minigpt.healing.recipe import Recipe
    from minigpt.healing.schedules import TuningResult, prolong, search, steps_for
    from minigpt.healing.teacher import Teacher
    from minigpt.healing.training import train
    from minigpt.healing.tune import TuneSettings

# The module that defines each public name.
_HOMES = {
    "Bound": "minigpt.healing.data",
    "Mask": "minigpt.healing.masks",
    "Recipe": "minigpt.healing.recipe",
    "Teacher": "minigpt.healing.teacher",
    "TokenText": "minigpt.healing.data",
    "TuneSettings": "minigpt.healing.tune",
    "TuningResult": "minigpt.healing.schedules",
    "bits_per_byte": "minigpt.healing.forward",
    "prolong": "minigpt.healing.schedules",
    "search": "minigpt.healing.schedules",
    "steps_for": "minigpt.healing.schedules",
    "train": "minigpt.healing.training",
}

__all__ = [
    "Bound",
    "Mask",
    "Recipe",
    "Teacher",
    "TokenText",
    "TuneSettings",
    "TuningResult",
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
