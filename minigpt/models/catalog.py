"""The catalog of finished models: an index with hashes, so that a model can be found again and trusted.

The index is one JSON file under :func:`minigpt.environment.home`; the models stay where they were built. Writers take
a file lock and replace the index atomically, so that builds that finish at the same moment keep each other's entries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from minigpt import environment
from minigpt.errors import AssetError, MiniGPTError, UnknownName
from minigpt.files import file_sha256, fingerprint, path_of, read_json, write_json
from minigpt.integrity import SUMS, defects, read_sums
from minigpt.progress import SILENT, Reporter
from minigpt.report.figures import final_stage, headline
from minigpt.results import SCHEMA_VERSION, BuildReport, CatalogEntry
from minigpt.tickets.delta_places import FOLDER

FileState = Literal["ok", "changed", "missing", "unexpected"]
INDEX_VERSION = 1
LOCK_SECONDS = 60.0
# Files beside the model that an entry hashes too.
RECORDS = ("report.json", "plan.json", "domain.yaml", "recipe.yaml", "sbom.json")
# Folders of what a build makes: a model, or the changes that make one of its parent; and the model's conditional form.
MODELS = ("model", FOLDER)
PRODUCTS = (*MODELS, "conditional")


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Content of `index.json`; the entries stand in the order in which they were added.

    Attributes:
        schema_version: version of these fields.
        entries: the models.
        digest: fingerprint of the entries, so that a damaged index is noticed; empty in older ones.
    """

    schema_version: int = INDEX_VERSION
    entries: tuple[CatalogEntry, ...] = ()
    digest: str = ""


def folder() -> Path:
    """Return the folder of the index."""
    return environment.home() / "catalog"


def add(build_dir: Path) -> CatalogEntry:
    """Add a finished build to the catalog: hash its files and record its headline figures.

    Adding an unchanged build again returns its entry. A folder that was built anew replaces its old entry, whose
    files no longer exist.

    Args:
        build_dir: Folder with `report.json` and `model/`, or `delta/` for a delta ticket. Write the model card first,
            because it is hashed too.

    Raises:
        AssetError: The folder is not a finished build, or is damaged.
        MiniGPTError: The report or the index cannot be read or written.
    """
    path = path_of(build_dir).resolve()
    if not (path / "report.json").is_file() or not any((path / product).is_dir() for product in MODELS):
        raise AssetError(f"{path} is not a finished build: it needs report.json and model/. Run minigpt build first.")
    _refuse_damaged(path)
    report = read_json(path / "report.json", BuildReport)
    if report.schema_version != SCHEMA_VERSION:
        raise AssetError(
            f"{path} was built by another version of minigpt. Build it again, or add it with that version."
        )
    entry = _entry(path, report, {name: file_sha256(path / name) for name in _files(path)})

    def enter(entries: tuple[CatalogEntry, ...]) -> tuple[CatalogEntry, ...]:
        unchanged = next((old for old in entries if old.path == entry.path and old.hashes == entry.hashes), entry)
        return (*(old for old in entries if old.path != entry.path), unchanged)

    return next(updated for updated in _update(enter) if updated.path == entry.path)


def entries(domain: str | None = None) -> tuple[CatalogEntry, ...]:
    """List all entries, or those of one domain, in the order in which they were added."""
    return tuple(entry for entry in _read().entries if domain in (None, entry.domain))


def get(entry_id: str) -> CatalogEntry:
    """Find the entry with this id.

    Raises:
        UnknownName: There is none; the message suggests the nearest id.
    """
    known = {entry.id: entry for entry in _read().entries}
    if entry_id not in known:
        raise UnknownName("catalog entry", entry_id, known)
    return known[entry_id]


def latest(domain: str) -> CatalogEntry:
    """Find the entry of `domain` that was added last.

    Raises:
        UnknownName: The catalog has no model of this domain.
    """
    of_domain = entries(domain)
    if not of_domain:
        raise UnknownName("domain in the catalog", domain, {entry.domain for entry in _read().entries})
    return of_domain[-1]


def resolve(name: str) -> Path:
    """Find the build folder of a catalog id, or of the latest entry of a domain.

    Raises:
        UnknownName: The name is neither an id nor a domain of the catalog.
        AssetError: The folder was moved or deleted.
    """
    index = _read()
    matches = [entry for entry in index.entries if name in (entry.id, entry.domain)]
    if not matches:
        names = {known for entry in index.entries for known in (entry.id, entry.domain)}
        raise UnknownName("catalog entry", name, names)
    entry = matches[-1]
    if not Path(entry.path).is_dir():
        raise AssetError(
            f"The files of {entry.id} are no longer at {entry.path}. Add their new folder with minigpt catalog add, "
            f"and remove this entry with minigpt catalog remove {entry.id}."
        )
    return Path(entry.path)


def remove(entry_id: str, *, delete: bool = False, reporter: Reporter = SILENT) -> CatalogEntry:
    """Remove an entry from the catalog; its files stay unless `delete` is set.

    Args:
        entry_id: Id of the entry.
        delete: Also delete the files that the entry recorded, and the folders that are then empty. Everything else in
            the build folder stays, and so do files that have been changed since.
        reporter: Told which changed files stay.

    Returns:
        The removed entry.

    Raises:
        UnknownName: There is no such entry.
        MiniGPTError: A file could not be deleted; the entry is then kept.
    """
    entry = get(entry_id)
    if delete:
        _delete(entry, reporter)
    _update(lambda old: tuple(other for other in old if other.id != entry_id))
    return entry


def forget(build_dir: Path) -> None:
    """Remove the entry of a folder whose model is about to go; nothing happens if the catalog has none.

    Raises:
        MiniGPTError: The index cannot be read or written.
    """
    path = str(path_of(build_dir).resolve())
    if any(entry.path == path for entry in entries()):
        _update(lambda old: tuple(entry for entry in old if entry.path != path))


def verify(entry_id: str | None = None) -> dict[str, dict[str, FileState]]:
    """Hash the files of one entry, or of all entries, again, and compare them with the index.

    Files that were added to the model are unexpected: a loader may read them instead of those that were measured.

    Args:
        entry_id: Id of the entry; None verifies all.

    Returns:
        The state of each file by entry id: `{id: {file: ok | changed | missing | unexpected}}`.

    Raises:
        UnknownName: There is no such entry.
    """
    selected = (get(entry_id),) if entry_id else _read().entries
    return {
        entry.id: {name: _state(entry, name) for name in sorted({*entry.hashes, *_added(entry)})} for entry in selected
    }


def _added(entry: CatalogEntry) -> Iterator[str]:
    """Yield the files of the model and its other forms that the entry has no hash of."""
    return (name for name in _files(Path(entry.path)) if name not in entry.hashes and name not in RECORDS)


def _state(entry: CatalogEntry, name: str) -> FileState:
    """Compare one file with the hash in its entry."""
    path = Path(entry.path) / name
    if name not in entry.hashes:
        return "unexpected"
    if not path.is_file():
        return "missing"
    return "ok" if file_sha256(path) == entry.hashes[name] else "changed"


def _refuse_damaged(path: Path) -> None:
    """Refuse a build of which a file is not what it wrote: its hashes of today would make that right for ever."""
    for sums in (read_sums(path / "work" / SUMS), read_sums(path / SUMS)):
        if sums is not None and (wrong := defects(path, sums)):
            raise AssetError(f"{path} is damaged: {wrong[0]}. Run the build once more, then add it.")


def _files(path: Path) -> Iterator[str]:
    """Yield the files that an entry hashes: those of the model and the records beside it, relative to `path`."""
    for name in RECORDS:
        if (path / name).is_file():
            yield name
    for file in sorted(file for product in PRODUCTS for file in (path / product).rglob("*")):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
            yield file.relative_to(path).as_posix()


def _entry(path: Path, report: BuildReport, hashes: dict[str, str]) -> CatalogEntry:
    """Describe a build as an entry; its id is `domain-percent kept-date-hash`, or `domain-delta-date-hash`."""
    final, figures = final_stage(report), headline(report)
    now = datetime.now(UTC)
    slug = re.sub(r"[^a-z0-9]+", "-", report.domain.lower()).strip("-") or "model"
    kept = FOLDER if final.stage == "delta" else str(round(100 * figures.get("parameters_kept", 1.0)))
    return CatalogEntry(
        id=f"{slug}-{kept}-{now:%Y%m%d}-{fingerprint(str(path), hashes)[:6]}",
        domain=report.domain,
        base_model=report.base_model,
        path=str(path),
        created=now.isoformat(timespec="seconds"),
        parameters=final.parameters,
        bytes=final.bytes,
        headline=figures,
        hashes=hashes,
    )


def _delete(entry: CatalogEntry, reporter: Reporter) -> None:
    """Delete the files that the entry recorded, as it recorded them.

    Nothing outside the entry's folder is deleted, even if the index was tampered with, and no file that has another
    hash than the recorded one: somebody has worked on it.
    """
    root = Path(entry.path).resolve()
    files = [root / name for name in entry.hashes]
    if outside := [file for file in files if not file.resolve().is_relative_to(root)]:
        raise MiniGPTError(f"{entry.id} lists {outside[0]}, which is outside {root}: nothing was deleted.")
    try:
        changed = [name for name, digest in entry.hashes.items() if _is_changed(root / name, digest)]
        if changed:
            reporter.note(f"Changed since they were recorded, and therefore kept: {', '.join(changed)}")
        for name in entry.hashes.keys() - set(changed):
            (root / name).unlink(missing_ok=True)
        for parent in _parents(files, root):
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
    except OSError as error:
        raise MiniGPTError(f"Cannot delete the files of {entry.id}: {error}. The entry stays.") from error


def _is_changed(file: Path, digest: str) -> bool:
    """Return whether a file is there with another content than the recorded one."""
    return file.is_file() and file_sha256(file) != digest


def _parents(files: Iterable[Path], root: Path) -> tuple[Path, ...]:
    """List the folders that held `files`, the deepest first and the build folder last."""
    parents = {parent for file in files for parent in file.parents if parent.is_relative_to(root)}
    return tuple(sorted(parents, key=lambda parent: len(parent.parts), reverse=True))


def _read() -> Index:
    """Read the index; it is empty if there is none yet."""
    path = folder() / "index.json"
    if not path.exists():
        return Index()
    try:
        index = read_json(path, Index)
        if index.digest and index.digest != fingerprint(index.entries):
            raise MiniGPTError(f"{path} is not what was written.")
    except MiniGPTError as error:
        raise MiniGPTError(
            f"The catalog's index is damaged: {error} Move that file away and add your models again with "
            "minigpt catalog add DIR; the models themselves are untouched."
        ) from None
    if index.schema_version != INDEX_VERSION:
        raise MiniGPTError(f"{path} was written by another version of minigpt; use that one, or move the file away.")
    return index


def _update(change: Callable[[tuple[CatalogEntry, ...]], tuple[CatalogEntry, ...]]) -> tuple[CatalogEntry, ...]:
    """Read, change and write the index while no other process can."""
    with _locked():
        changed = change(_read().entries)
        write_json(folder() / "index.json", Index(entries=changed, digest=fingerprint(changed)))
    return changed


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the file lock of the index."""
    from filelock import FileLock, Timeout

    lock = folder() / "index.lock"
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=LOCK_SECONDS):
            yield
    except Timeout:
        raise MiniGPTError(
            f"Another minigpt has held {lock} for {LOCK_SECONDS:.0f} s. Wait for it and run the command again."
        ) from None
    except OSError as error:
        raise MiniGPTError(
            f"Cannot write the catalog in {folder()}: {error.strerror or error}. Set MINIGPT_HOME to a folder that you "
            "can write to."
        ) from error


# `catalog.list()` reads like the command. It stands last, because it hides the builtin in this module.
list = entries
