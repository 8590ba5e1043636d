"""Builds of a small world, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minigpt import pipeline
from minigpt.pipeline import BuildOptions
from minigpt.progress import SILENT, Reporter
from minigpt.types import BuildReport

NO_HEALING = {"heal.steps": "0"}
FAST = {**NO_HEALING, "repair.tokens": "0", "evaluation.sample_tokens": "0", "evaluation.general": "false"}


def build(options: BuildOptions, reporter: Reporter = SILENT) -> BuildReport:
    """The report of a build of one domain."""
    (made,) = pipeline.build(options, reporter)
    return made


def folder_of(options: BuildOptions) -> Path:
    """Where it was written."""
    assert options.output_dir is not None
    return options.output_dir


def weights_of(folder: Path) -> dict[str, Any]:
    """Tensors of a model folder by name."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
