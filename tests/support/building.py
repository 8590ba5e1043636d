"""Builds of a small world, and what they leave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minigpt import pipeline
from minigpt.assets import Parent, load_tokenizer
from minigpt.pipeline import BuildOptions
from minigpt.pipeline.groundwork import read, training_text_and_tuned_parent
from minigpt.pipeline.read import Corpora
from minigpt.pipeline.run import Run, load, load_parent, resolve_run
from minigpt.pipeline.text import PlanningText, TrainingText, planning_text, training_text
from minigpt.pipeline.tuning import TunedParent, tune_briefly
from minigpt.progress import SILENT, Reporter
from minigpt.results import BuildReport

NO_HEALING = {"heal.steps": "0"}
FAST = {**NO_HEALING, "repair.tokens": "0", "evaluation.sample_tokens": "0", "evaluation.general": "false"}


def build(options: BuildOptions, reporter: Reporter = SILENT) -> BuildReport:
    """The report of a build of one domain."""
    (report,) = pipeline.build_specialists(options, reporter)
    return report


def folder_of(options: BuildOptions) -> Path:
    """Where it was written."""
    assert options.output_dir is not None
    return options.output_dir


def weights_of(folder: Path) -> dict[str, Any]:
    """Tensors of a model folder by name."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A build as it stands before anything is trained or planned."""

    run: Run
    corpora: Corpora
    parent: Parent
    planning: PlanningText
    real: TrainingText

    @property
    def tokenizer(self) -> Any:
        """The parent's."""
        return load_tokenizer(self.parent.path)

    def text(self) -> TrainingText:
        """All training text, as a build gathers it: the parent is tuned and writes where the settings want it."""
        return training_text_and_tuned_parent(self.run, self.corpora, self.parent, trains=True)[0]

    def tuned(self) -> TunedParent:
        """The tuned parent."""
        _, tuned = training_text_and_tuned_parent(self.run, self.corpora, self.parent, trains=True)
        assert tuned is not None
        return tuned

    def writer(self) -> TunedParent:
        """The briefly tuned parent."""
        return tune_briefly(self.run, self.parent, self.real)

    def load(self, path: Path) -> Any:
        """A model in the precision that models are measured in."""
        return load(self.run, path)


def start(options: BuildOptions, reporter: Reporter = SILENT) -> Start:
    """Read the text and the parent of a build."""
    resolved = resolve_run(options.domains[0], options, reporter)
    corpora, _ = read(resolved)
    return Start(
        run=resolved,
        corpora=corpora,
        parent=load_parent(resolved),
        planning=planning_text(corpora, resolved.settings),
        real=training_text(corpora, resolved.settings, seed=resolved.text_seed),
    )


def no_text(*_: object) -> None:
    """Stand for the reading of text, which must not be reached."""
    raise AssertionError("text is read")


def values_given(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, option: str) -> list[Any]:
    """Collect what a module's function is given for an option; the function itself still does its work."""
    values: list[Any] = []
    function = getattr(module, name)

    def seen(*arguments: Any, **options: Any) -> Any:
        values.append(options[option])
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, seen)
    return values
