"""Pruning methods: they rank the units of a model. Each method is one row of a table and one function.

The public names are imported on first use, so that listing the table does not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minigpt.lazy import resolve
from minigpt.methods.scores import Scores
from minigpt.methods.table import METHODS, Method, method_named

if TYPE_CHECKING:
    from minigpt.methods.material import Material, PaperForm

__all__ = ["METHODS", "Material", "Method", "PaperForm", "Scores", "method_named", "resolve"]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it (PEP 562)."""
    if name not in {"Material", "PaperForm"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return resolve(f"minigpt.methods.material:{name}")
