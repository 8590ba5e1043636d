"""Workspace: the folder of one build. Finished stages stay under `work/`, each with the fingerprint of its inputs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minigpt.errors import MiniGPTError
from minigpt.files import atomic_path, read_json, write_json
from minigpt.results import BuildReport

# Marker of a finished stage.
DONE = "done.json"
# Marker of a build's folder.
BUILD = "build.json"
# Stages that hold weights.
HEAVY = ("tuned_first", "tuned", "distilled", "pruned", "healed", "conditional")
# Folders that keep the finished runs of a search until it is over.
LEDGERS = ("tuning_runs", "tuning_long_run")
# Folder of converted layers, a stage for each, until the conditional form is whole.
LAYERS = "conditional_layers"
# Stages that hold text.
TEXTS = ("corpus", "sampled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Marker of a finished stage, which is written last into its folder.

    Attributes:
        key: fingerprint of the stage's inputs.
        seconds: time that the stage took.
    """

    key: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Paths of one build; the folder `work/<stage>` of a stage is complete or does not exist."""

    root: Path

    @property
    def work(self) -> Path:
        """Folder of the stages."""
        return self.root / "work"

    @property
    def model(self) -> Path:
        """Folder of the finished model, in Hugging Face format."""
        return self.root / "model"

    @property
    def conditional(self) -> Path:
        """Folder of the model's conditional form."""
        return self.root / "conditional"

    @property
    def report(self) -> Path:
        """File of the report."""
        return self.root / "report.json"

    def stage(self, name: str, key: str, make: Callable[[Path], None]) -> tuple[Path, Done]:
        """Return the folder and the marker of a stage; run the stage unless it is finished with the same key.

        A stage that fails or is killed leaves nothing; a stage of other inputs is replaced once the new one is whole.

        Args:
            name: name of the stage.
            key: fingerprint of its inputs.
            make: runs the stage and writes its results into the folder that it is given.
        """
        folder = self.work / name
        if (done := finished(folder)) is not None and done.key == key:
            return folder, done
        started = time.perf_counter()
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            make(temporary)
            done = Done(key=key, seconds=time.perf_counter() - started)
            write_json(temporary / DONE, done)
        return folder, done

    @property
    def marker(self) -> Path:
        """File that marks the folder as a build's and holds the build's options."""
        return self.work / BUILD

    def is_foreign(self) -> bool:
        """Return whether the folder holds files, but no build."""
        if not self.root.is_dir():
            return self.root.exists()
        return not (self.marker.exists() or _is_report(self.report)) and any(self.root.iterdir())

    def slim(self) -> None:
        """Delete text, weights of finished stages and leftovers of killed runs; the build keeps its own model.

        A stage without its weights counts as unfinished.
        """
        for name in HEAVY:
            (self.work / name / DONE).unlink(missing_ok=True)
            for weights in (self.work / name).rglob("*.safetensors"):
                weights.unlink()
        for name in (*TEXTS, *LEDGERS, LAYERS):
            shutil.rmtree(self.work / name, ignore_errors=True)
        for stale in self.work.glob(".*"):
            shutil.rmtree(stale, ignore_errors=True)

    def clear(self) -> None:
        """Delete everything that this build wrote, and nothing else."""
        for path in (self.work, self.model, self.conditional):
            shutil.rmtree(path, ignore_errors=True)
        for name in ("report.json", "plan.json", "domain.yaml", "recipe.yaml", "report.svg"):
            (self.root / name).unlink(missing_ok=True)


def _is_report(path: Path) -> bool:
    """Return whether a file is the report of a build."""
    try:
        return "build" in read_json(path, BuildReport).fingerprints
    except MiniGPTError:
        return False


def finished(folder: Path) -> Done | None:
    """Read the marker of a finished stage; None if the stage is not finished."""
    try:
        return read_json(folder / DONE, Done)
    except MiniGPTError:
        return None
