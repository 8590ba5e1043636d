"""minigpt: compact specialist language models from domain text, with proof that they still do the job.

The functions and records below are all that a caller needs; each is imported on first use, so that `import minigpt`
costs nothing.

>>> import minigpt
>>> sorted(minigpt.__all__)[:3]
['BuildOptions', 'BuildReport', 'DomainConfig']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigpt.api.build import build
    from minigpt.api.memory import heal, plan, prune
    from minigpt.api.use import evaluate, export, load, load_report
    from minigpt.domain.config import DomainConfig, load_domain
    from minigpt.healing.recipe import Recipe
    from minigpt.methods.table import Method
    from minigpt.pipeline.options import BuildOptions
    from minigpt.pipeline.recipe import read_recipe
    from minigpt.results import BuildReport
    from minigpt.types import PrunePlan

__version__ = "0.2.0"

_HOMES = {
    "BuildOptions": "minigpt.pipeline.options",
    "BuildReport": "minigpt.results",
    "DomainConfig": "minigpt.domain.config",
    "Method": "minigpt.methods.table",
    "PrunePlan": "minigpt.types",
    "Recipe": "minigpt.healing.recipe",
    "build": "minigpt.api.build",
    "evaluate": "minigpt.api.use",
    "export": "minigpt.api.use",
    "heal": "minigpt.api.memory",
    "load": "minigpt.api.use",
    "load_domain": "minigpt.domain.config",
    "load_report": "minigpt.api.use",
    "plan": "minigpt.api.memory",
    "prune": "minigpt.api.memory",
    "read_recipe": "minigpt.pipeline.recipe",
}

__all__ = [
    "BuildOptions",
    "BuildReport",
    "DomainConfig",
    "Method",
    "PrunePlan",
    "Recipe",
    "__version__",
    "build",
    "evaluate",
    "export",
    "heal",
    "load",
    "load_domain",
    "load_report",
    "plan",
    "prune",
    "read_recipe",
]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
