"""minigpt: compact specialist language models from domain text, with proof that they still do the job.

The public names below are imported on first use, so that `import minigpt` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigpt.domain.config import DomainConfig, load_domain
    from minigpt.pipeline import BuildOptions
    from minigpt.pipeline.build import build
    from minigpt.types import BuildReport, PrunePlan

__version__ = "0.2.0"

_HOMES = {
    "BuildOptions": "minigpt.pipeline",
    "BuildReport": "minigpt.types",
    "DomainConfig": "minigpt.domain.config",
    "PrunePlan": "minigpt.types",
    "build": "minigpt.pipeline",
    "load_domain": "minigpt.domain.config",
}

__all__ = ["BuildOptions", "BuildReport", "DomainConfig", "PrunePlan", "__version__", "build", "load_domain"]


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
