"""The folder of one build: finished stages stay under `work/`, found again by the fingerprint of their inputs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minigpt.errors import MiniGPTError
from minigpt.files import atomic_path, read_json, write_json
from minigpt.types import BuildReport

DONE = "done.json"
BUILD = "build.json"
HEAVY = ("tuned_first", "tuned", "pruned", "healed")
TEXTS = ("corpus", "sampled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Written last into a stage's folder: whose inputs it was made from, and how long it took."""

    key: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Paths of one build. `work/<stage>/` appears whole or not at all."""

    root: Path

    @property
    def work(self) -> Path:
        """Where unfinished business lives."""
        return self.root / "work"

    @property
    def model(self) -> Path:
        """The finished model, a plain Hugging Face folder."""
        return self.root / "model"

    @property
    def report(self) -> Path:
        """The report."""
        return self.root / "report.json"

    def stage(self, name: str, key: str, make: Callable[[Path], None]) -> tuple[Path, Done]:
        """The folder of a stage, made by `make` unless it is there with the same key.

        A stage that fails or is killed leaves nothing; one made from other inputs is replaced when the new one is
        whole.
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
        """Says that the folder is a build's, and with which options it was asked for."""
        return self.work / BUILD

    def is_foreign(self) -> bool:
        """Whether the folder holds files and no build."""
        if not self.root.is_dir():
            return self.root.exists()
        return not (self.marker.exists() or _is_report(self.report)) and any(self.root.iterdir())

    def slim(self) -> None:
        """Drop the text, the weights of finished stages, of which the build keeps one, and what killed runs left.

        A stage without its weights counts as not done.
        """
        for name in HEAVY:
            (self.work / name / DONE).unlink(missing_ok=True)
            for weights in (self.work / name).rglob("*.safetensors"):
                weights.unlink()
        for name in TEXTS:
            shutil.rmtree(self.work / name, ignore_errors=True)
        for stale in self.work.glob(".*"):
            shutil.rmtree(stale, ignore_errors=True)

    def clear(self) -> None:
        """Remove everything this build wrote, and nothing else."""
        for path in (self.work, self.model):
            shutil.rmtree(path, ignore_errors=True)
        for name in ("report.json", "plan.json", "domain.yaml", "recipe.yaml", "report.svg"):
            (self.root / name).unlink(missing_ok=True)


def _is_report(path: Path) -> bool:
    """Whether a file is the report of a build of ours."""
    try:
        return "build" in read_json(path, BuildReport).fingerprints
    except MiniGPTError:
        return False


def finished(folder: Path) -> Done | None:
    """The marker of a finished stage, or None."""
    try:
        return read_json(folder / DONE, Done)
    except MiniGPTError:
        return None
