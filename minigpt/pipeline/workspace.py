"""Workspace: the folder of one build. Finished stages stay under `work/`, each with the fingerprint of its inputs.

Every finished stage, and the finished build, has a file of sums (:mod:`minigpt.integrity`), which is written last and
compared before anything in it is used.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from minigpt import integrity, locks
from minigpt.costs import StepCost
from minigpt.energy import energy, used
from minigpt.errors import MiniGPTError
from minigpt.files import atomic_path, read_json, sweep, write_json
from minigpt.progress import SILENT, Reporter
from minigpt.progress.stages import step
from minigpt.results import BuildReport
from minigpt.tickets.delta_places import FOLDER

# Marker of a finished stage.
DONE = "done.json"
# Marker of a build's folder.
BUILD = "build.json"
# Stages that hold weights.
HEAVY = ("tuned_first", "tuned", "distilled", "pruned", "healed", "delta", "conditional")
# Beginning of the names of a delta ticket's rounds.
ROUND = "delta_"
# Folders that keep the finished runs of a search, or the rounds of a lottery ticket, until it is over.
ROUNDS_WORK = "rounds_work"
LEDGERS = ("tuning_runs", "tuning_long_run", ROUNDS_WORK)
# Folder of converted layers, a stage for each, until the conditional form is whole.
LAYERS = "conditional_layers"
# End of the names of folders with a teacher's stored answers.
ANSWERS = "_answers"
# Stages that hold text.
TEXTS = ("corpus", "sampled")
# Files of a finished build beside its model, the report last.
RECORDS = ("plan.json", "domain.yaml", "recipe.yaml", "sbom.json", "report.json")
# Permissions of the folder of stages, which holds the text that is trained on.
PRIVATE = 0o700
# Lock of a build's folder.
LOCK = "in_use.lock"
# True inside a stage, whose cost holds that of the stages inside it.
_INSIDE: ContextVar[bool] = ContextVar("inside", default=False)
# Folder of the locks of stages that several processes may want to make.
LOCKS = "locks"
# Seconds to wait for another process that may just be ending.
PATIENCE = 2.0


class State(Enum):
    """State of a folder that a build is asked to write."""

    WHOLE = "finished, with every file as it was written"
    RESUMABLE = "new, unfinished or damaged: the same build may go on in it"
    FOREIGN = "holds files that no build wrote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Marker of a finished stage, which is written last into its folder.

    Attributes:
        key: fingerprint of the stage's inputs.
        seconds: time that the stage took.
        joules: energy that it took, by counter (:mod:`minigpt.energy`).
    """

    key: str
    seconds: float
    joules: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Paths of one build; the folder `work/<stage>` of a stage is complete or does not exist.

    Attributes:
        root: the build's folder.
        reporter: told about damaged things that are moved aside.
        waits: whether other processes make stages here, too: then one makes a stage, and the others wait for it.
        device: torch device whose energy is counted; None counts the processor's alone.
        steps: the steps that this process ran or found finished, by name; those inside others are left out.
    """

    root: Path
    waits: bool = field(default=False, compare=False, kw_only=True)
    reporter: Reporter = field(default=SILENT, compare=False, repr=False)
    device: str | None = field(default=None, compare=False, repr=False)
    steps: dict[str, StepCost] = field(default_factory=dict, compare=False, repr=False)

    @property
    def work(self) -> Path:
        """Folder of the stages."""
        return self.root / "work"

    @property
    def model(self) -> Path:
        """Folder of the finished model, in Hugging Face format."""
        return self.root / "model"

    @property
    def ticket(self) -> Path:
        """Folder of the finished delta ticket, where one was made instead of a model."""
        return self.root / FOLDER

    @property
    def conditional(self) -> Path:
        """Folder of the model's conditional form."""
        return self.root / "conditional"

    @property
    def products(self) -> tuple[Path, ...]:
        """Folders that a user keeps, of which a build makes some."""
        return (self.model, self.ticket, self.conditional)

    @property
    def report(self) -> Path:
        """File of the report."""
        return self.root / "report.json"

    def stage(self, name: str, key: str, make: Callable[[Path], None]) -> tuple[Path, Done]:
        """Return the folder and the marker of a stage; run the stage unless it is finished with the same key.

        A stage that fails or is killed leaves nothing; a stage of other inputs is replaced once the new one is whole.
        A finished stage of which a file has changed is moved aside and runs again.

        Args:
            name: name of the stage.
            key: fingerprint of its inputs.
            make: runs the stage and writes its results into the folder that it is given.
        """
        if self.waits:
            with locks.wait_for(self.root / LOCKS / f"{name}.lock", f"The stage {name}"):
                return replace(self, waits=False).stage(name, key, make)
        outermost = not _INSIDE.get()
        token = _INSIDE.set(True)
        try:
            with step(self.reporter, name) as begins:
                folder, done = self._stage(name, key, lambda target: _after(begins, make, target))
        finally:
            _INSIDE.reset(token)
        if outermost:
            self.steps[name] = StepCost(name=name, seconds=done.seconds, joules=done.joules)
        return folder, done

    def _stage(self, name: str, key: str, make: Callable[[Path], None]) -> tuple[Path, Done]:
        """Return the folder and the marker of a stage, as :meth:`stage` does."""
        folder = self.work / name
        if (done := finished(folder)) is not None and done.key == key:
            if (reason := integrity.damage(folder)) is None:
                return folder, done
            self.reporter.note(integrity.aside_note(folder, reason, integrity.set_aside(folder)))
        started, before = time.perf_counter(), energy(self.device)
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            make(temporary)
            joules = used(before, energy(self.device))
            done = Done(key=key, seconds=time.perf_counter() - started, joules=joules)
            write_json(temporary / DONE, done)
            integrity.seal(temporary, key=key)
        return folder, done

    @property
    def marker(self) -> Path:
        """File that marks the folder as a build's and holds the build's options."""
        return self.work / BUILD

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder inside the block, and sweep what killed ones left.

        Raises:
            Busy: another process builds there.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # the folder is another user's
            self.work.chmod(PRIVATE)
        with locks.hold(self.work / LOCK, str(self.root), timeout=PATIENCE):
            for path in (self.marker, *self.products, *(self.root / name for name in RECORDS)):
                sweep(path)
            for stale in self.work.glob(".*"):
                shutil.rmtree(stale, ignore_errors=True)
            yield

    def state(self) -> State:
        """Tell what the folder is, by its names, its marker and its sums."""
        if self._is_foreign():
            return State.FOREIGN
        return State.WHOLE if self.report.exists() and self.damage() is None else State.RESUMABLE

    def seal(self, key: str) -> None:
        """Declare the build finished: record the hashes of everything that a user keeps.

        Args:
            key: the build's fingerprint.
        """
        records = [name for name in RECORDS if (self.root / name).exists()]
        products = (path for folder in self.products for path in folder.rglob("*") if path.is_file())
        kept = (path for path in products if not integrity.is_prose(path.name))
        names = [*records, *(path.relative_to(self.root).as_posix() for path in kept)]
        integrity.seal(self.root, names=names, key=key, at=self.work / integrity.SUMS)

    def damage(self) -> str | None:
        """Say what is wrong with a build that was finished; None if nothing is, or if it was never sealed."""
        try:
            sums = integrity.read_sums(self.work / integrity.SUMS)
        except MiniGPTError as error:
            return str(error).rstrip(".")
        wrong = integrity.defects(self.root, sums) if sums is not None else ()
        return wrong[0] if wrong else None

    def set_damaged_aside(self, reason: str) -> None:
        """Move a damaged build's report and model aside, so that the build is made again.

        The sums go last: until nothing damaged is in its place they tell a later run that it is damaged.

        Args:
            reason: what is wrong with it.
        """
        for path in (self.report, *self.products):
            if path.exists():
                self.reporter.note(integrity.aside_note(path, reason, integrity.set_aside(path)))
        (self.work / integrity.SUMS).unlink(missing_ok=True)

    @property
    def is_sealed(self) -> bool:
        """True if hashes of the whole build are recorded, the report's among them."""
        try:
            sums = integrity.read_sums(self.work / integrity.SUMS)
        except MiniGPTError:  # a damaged record is one
            return True
        return sums is not None and self.report.name in sums.files

    def open_for(self, *names: str) -> None:
        """Take these files, and what is below these folders, out of the sums: they are about to be written again.

        Everything else stays sealed, so that damage meanwhile is noticed.
        """
        if (sums := integrity.read_sums(self.work / integrity.SUMS)) is not None:
            kept = {path: digest for path, digest in sums.files.items() if path.split("/")[0] not in names}
            integrity.write_sums(self.work / integrity.SUMS, kept, sums.key)

    def _is_foreign(self) -> bool:
        """Return whether the folder holds files, but no build, and not the first steps of one either."""
        if not self.root.is_dir():
            return self.root.exists()
        if self.marker.exists() or (self.work / integrity.SUMS).exists() or _is_report(self.report):
            return False
        begun = (LOCK, f"{Path(LOCK).stem}.json")
        if any(path != self.work for path in self.root.iterdir()) or not self.work.is_dir():
            return any(self.root.iterdir())
        return any(path.name not in begun and not path.name.startswith(".") for path in self.work.iterdir())

    def slim(self) -> None:
        """Delete text, weights of finished stages and leftovers of killed runs; the build keeps its own model.

        A stage without its weights counts as unfinished.
        """
        rounds = (path.name for path in self.work.glob(f"{ROUND}*") if path.is_dir())
        for name in (*HEAVY, *rounds):
            (self.work / name / DONE).unlink(missing_ok=True)
            for weights in (self.work / name).rglob("*.safetensors"):
                weights.unlink()
        answers = (path.name for path in self.work.glob(f"*{ANSWERS}") if path.is_dir())
        for name in (*TEXTS, *LEDGERS, LAYERS, *answers):
            shutil.rmtree(self.work / name, ignore_errors=True)
        for stale in (*self.work.glob(".*"), *self.work.glob(f"*{integrity.DAMAGED}*")):
            shutil.rmtree(stale, ignore_errors=True)

    def clear(self) -> None:
        """Delete everything that this build wrote, and nothing else.

        The marker stays, and what declares things finished goes first: a process that is killed meanwhile leaves a
        folder that the same build resumes in, and that nothing takes for finished.
        """
        for finishing in (self.report, self.work / integrity.SUMS, *self.work.glob(f"*/{DONE}")):
            finishing.unlink(missing_ok=True)
        for product in self.products:
            shutil.rmtree(product, ignore_errors=True)
        for name in (*RECORDS, "sbom.json.sig", "report.svg", "report.html"):
            (self.root / name).unlink(missing_ok=True)
        for path in self.work.iterdir() if self.work.is_dir() else ():
            if path.name not in (BUILD, LOCK, f"{Path(LOCK).stem}.json"):
                _remove(path)


def _after(begins: Callable[[], None], make: Callable[[Path], None], target: Path) -> None:
    """Say that a stage runs, and run it."""
    begins()
    make(target)


def _remove(path: Path) -> None:
    """Delete a file, or a folder with all that is in it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
