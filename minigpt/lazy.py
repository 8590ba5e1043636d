"""References of the form "module:name", imported on use. Tables of commands, methods and formats hold them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def resolve(reference: str) -> Any:
    """Import the object that a reference "module:name" names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
