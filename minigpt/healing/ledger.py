"""Results of a search on disk: its runs so far, and the weights of the best of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minigpt.errors import MiniGPTError, first_line
from minigpt.files import atomic_path, fingerprint
from minigpt.healing.tune import Attempt
from minigpt.integrity import aside_note, read_kept, set_aside, sha256_once, write_kept
from minigpt.progress import SILENT, Reporter

RUNS = "runs.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """Content of a ledger.

    Attributes:
        key: fingerprint of everything that the search depends on.
        attempts: the runs so far, in order.
        weights: name of the file with the best weights; empty if those of an earlier search are better.
        sha256: hash of that file.
    """

    key: str
    attempts: tuple[Attempt, ...] = ()
    weights: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """A folder that a search writes each finished run into, so that it goes on after a kill.

    Attributes:
        folder: the folder; a ledger of another search in it is thrown away.
        key: fingerprint of everything that the search depends on.
        reporter: told about a damaged ledger, which is moved aside.
    """

    folder: Path
    key: str
    reporter: Reporter = field(default=SILENT, compare=False, repr=False)

    @property
    def checkpoint(self) -> Path:
        """File from which a run that was killed resumes."""
        return self.folder / "run.safetensors"

    def read(self) -> Entries:
        """Read the runs of this search; none if the folder holds another search or is damaged."""
        fresh = Entries(key=self.key)
        if not (self.folder / RUNS).exists():
            return fresh
        try:
            entries = read_kept(self.folder / RUNS, Entries)
        except MiniGPTError as error:
            return self._damaged(first_line(error), fresh)
        if entries.key != self.key:
            return fresh
        best = self.folder / entries.weights
        if entries.weights and not (best.is_file() and sha256_once(best) == entries.sha256):
            return self._damaged(f"{entries.weights} is not what was written", fresh)
        return entries

    def _damaged(self, reason: str, fresh: Entries) -> Entries:
        """Move the damaged folder aside, and begin anew."""
        self.reporter.note(aside_note(self.folder, reason.rstrip("."), set_aside(self.folder)))
        return fresh

    def load(self, entries: Entries, model: Any) -> Any:
        """Load the best weights into a model of the same shape, and return it."""
        from safetensors.torch import load_model

        load_model(model, self.folder / entries.weights)
        return model

    def add(self, before: Entries, attempt: Attempt, model: Any | None) -> Entries:
        """Write a finished run; the list of runs is replaced last and names weights that are whole.

        Args:
            before: content of the ledger.
            attempt: the run.
            model: its model if it is the best so far, else None.
        """
        from safetensors.torch import save_model

        self.folder.mkdir(parents=True, exist_ok=True)
        weights, sha256 = before.weights, before.sha256
        if model is not None:
            weights = f"best-{fingerprint(self.key, len(before.attempts))}.safetensors"
            with atomic_path(self.folder / weights) as temporary:
                save_model(model, str(temporary))
            sha256 = sha256_once(self.folder / weights)
        entries = Entries(key=self.key, attempts=(*before.attempts, attempt), weights=weights, sha256=sha256)
        write_kept(self.folder / RUNS, entries)
        for old in self.folder.glob("best-*.safetensors"):
            if old.name != weights:
                old.unlink()
        return entries

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
