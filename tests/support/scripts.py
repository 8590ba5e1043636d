"""Scripts of `benchmarks/` as modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@contextmanager
def script(name: str) -> Iterator[ModuleType]:
    """Import a script inside the block; afterwards neither it nor the scripts that it imported are known."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module(name)
    for module in {path.stem for path in BENCHMARKS.glob("*.py")} & (set(sys.modules) - before):
        sys.modules.pop(module)
