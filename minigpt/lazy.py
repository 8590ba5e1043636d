"""Objects named as "module:name" and imported on use: the entries of the tables of commands, methods and formats."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any


def resolve(reference: str | Callable[..., Any]) -> Any:
    """Import the object that "module:name" names; anything but a string is the object itself.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such name.
    """
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


@contextmanager
def importable_here() -> Iterator[None]:
    """Inside the block modules of the current folder can be imported, after all installed ones."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
