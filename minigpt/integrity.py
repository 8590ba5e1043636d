"""Integrity of kept files: their hashes are recorded on writing and compared before use, and damaged things move aside.

A kept folder is whole, resumable or foreign. It is whole if its file of sums names every file and all of them still
have their hashes; it is foreign if no build of ours began it; everything else is resumable.

Every kept file is hashed in full once per process, because a flipped byte changes neither size nor time. A second look
at a file whose size, times and inode are unchanged costs nothing. docs/reliability.md has the cost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from minigpt.errors import MiniGPTError
from minigpt.files import dumps, file_sha256, fingerprint, read_json, sync_folder, to_plain, write_json
from minigpt.parsing import load_json

T = TypeVar("T")

# File that holds the sums of a kept folder.
SUMS = "sums.json"
# Part of the name of whatever was moved aside.
DAMAGED = ".damaged-"
# Field of a JSON record that holds the fingerprint of the others.
DIGEST = "digest"
# Files that people edit after a build: a change in them is no damage.
PROSE = ("README.md", "report.html", "report.svg")

_hashes: dict[Path, tuple[tuple[int, ...], str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Hashes of a folder's files.

    Attributes:
        files: SHA-256 by path relative to the folder.
        key: fingerprint of what the folder was made from; empty where nothing depends on it.
        digest: fingerprint of the other fields, so that damage to this record is noticed too.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    digest: str = ""


def sha256_once(path: Path) -> str:
    """Return the SHA-256 of a file; a file that was hashed before and has not been touched is not read again."""
    status = path.stat()
    state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    known = _hashes.get(path)
    if known is None or known[0] != state:
        _hashes[path] = known = (state, file_sha256(path))
    return known[1]


def seal(folder: Path, *, names: Iterable[str] | None = None, key: str = "", at: Path | None = None) -> Sums:
    """Record the hashes of a folder's files; write this last, since it declares the folder whole.

    Args:
        folder: the folder.
        names: paths relative to it (None: every file below it whose path has no part that begins with a dot).
        key: fingerprint of what the folder was made from.
        at: the file of sums (None: `sums.json` in the folder).
    """
    listed = sorted(_files(folder) if names is None else names)
    files = {name: sha256_once(folder / name) for name in listed}
    return write_sums(at or folder / SUMS, files, key)


def write_sums(path: Path, files: Mapping[str, str], key: str) -> Sums:
    """Write hashes by name as a file of sums, with the fingerprint of all of them."""
    sums = Sums(files=files, key=key, digest=fingerprint(dict(files), key))
    write_json(path, sums)
    return sums


def read_sums(path: Path) -> Sums | None:
    """Read a file of sums; None if there is none.

    Raises:
        MiniGPTError: the record itself is damaged.
    """
    if not path.exists():
        return None
    sums = read_json(path, Sums)
    if sums.digest != fingerprint(dict(sums.files), sums.key):
        raise MiniGPTError(f"{path} is damaged.")
    return sums


def defects(folder: Path, sums: Sums, *, names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Name the recorded files that are missing or no longer have their hashes, in words for a message.

    Args:
        folder: the folder.
        sums: its sums.
        names: the files to look at (None: all of them).
    """
    wrong = []
    for name in sums.files if names is None else names:
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif sha256_once(path) != sums.files[name]:
            wrong.append(f"{name} is not what was written")
    return tuple(wrong)


def damage(folder: Path) -> str | None:
    """Say what is wrong with a folder that was sealed as a whole; None if nothing is.

    A folder without sums was never finished, which counts as damage too.
    """
    try:
        sums = read_sums(folder / SUMS)
    except MiniGPTError as error:
        return str(error).rstrip(".")
    if sums is None:
        return f"{SUMS} is missing"
    wrong = defects(folder, sums)
    return wrong[0] if wrong else None


def check_model(folder: Path) -> None:
    """Refuse a model folder of which a file is not what a build or a conversion wrote.

    Folders that nothing of ours has sealed are accepted as they are.

    Args:
        folder: the folder with config.json. Its sums may lie in it, beside it, or in the build's `work/`.

    Raises:
        MiniGPTError: a file is missing or changed.
    """
    for place in _places(folder):
        for root, sums in ((place, read_sums(place / SUMS)), *_sums_around(place)):
            inside = [name for name in sums.files if (root / name).is_relative_to(place)] if sums is not None else []
            if sums is not None:
                _refuse_defects(folder, "the folder", root, sums, inside)


def check_file(path: Path) -> None:
    """Refuse one file that a build or a conversion sealed and that is not what it wrote.

    Args:
        path: the file. Its sums may lie beside it, in `work/` beside it, or one folder further up.

    Raises:
        MiniGPTError: the file has changed.
    """
    for place in _places(path):
        for root, sums in (*_sums_around(place), *_sums_around(place.parent)):
            inside = [name for name in sums.files if root / name == place] if sums is not None else []
            if sums is not None:
                _refuse_defects(path, "the file", root, sums, inside)


def _places(path: Path) -> tuple[Path, ...]:
    """Return the paths by which sums may name a thing: as it is written, where that stands, and where links lead.

    All count: the files of the Hub's cache and a model moved to another disk are links beside their sums, and a link
    from elsewhere leads to a thing that has its sums beside it.
    """
    path = path.absolute()
    return tuple(dict.fromkeys((path, path.parent.resolve() / path.name, path.resolve())))


def _sums_around(path: Path) -> Iterator[tuple[Path, Sums | None]]:
    """Yield the sums that may name a file or a folder, each with the folder that its names are relative to."""
    yield path.parent, read_sums(path.parent / SUMS)
    yield path.parent, read_sums(path.parent / "work" / SUMS)


def _refuse_defects(subject: Path, what: str, root: Path, sums: Sums, names: Iterable[str]) -> None:
    """Refuse a folder or a file if one of these recorded files is missing or has changed."""
    if wrong := defects(root, sums, names=[name for name in names if not is_prose(name)]):
        raise MiniGPTError(
            f"{subject} is damaged: {wrong[0]}. Run the command that made it once more, or copy {what} elsewhere to "
            "use it as it is."
        )


def is_prose(name: str) -> bool:
    """Return whether a file is one that people edit, so that a change in it is no damage."""
    return Path(name).name in PROSE


def set_aside(path: Path) -> Path:
    """Move a damaged file or folder out of the way, beside itself, and return its new path.

    An older one of the same name that was moved aside before is kept, too: nothing is deleted here.

    Raises:
        MiniGPTError: it cannot be moved.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    number, target = 1, path.with_name(f"{path.name}{DAMAGED}{stamp}")
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}{DAMAGED}{stamp}-{number}")
    try:
        os.replace(path, target)
        sync_folder(path.parent)
    except OSError as error:
        raise MiniGPTError(f"Cannot move the damaged {path} aside: {error.strerror or error}.") from error
    return target


def aside_note(path: Path, reason: str, target: Path) -> str:
    """Say that something damaged was moved aside and is made again."""
    return f"{path} was damaged ({reason}); it was moved to {target.name} and is made again."


def _files(folder: Path) -> list[str]:
    """List the files below a folder, without its sums and without hidden ones."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [name.as_posix() for name in names if str(name) != SUMS and not any(p.startswith(".") for p in name.parts)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A small record with its own hash."""

    content: str
    sha256: str


def write_kept(path: Path, value: object) -> None:
    """Write a record as JSON, together with its hash."""
    content = dumps(value)
    write_json(path, _Kept(content=content, sha256=fingerprint(content)))


def read_kept(path: Path, kind: type[T]) -> T:
    """Read a record that :func:`write_kept` wrote.

    Raises:
        MiniGPTError: the file is missing or damaged.
    """
    from pydantic import TypeAdapter, ValidationError

    kept = read_json(path, _Kept)
    if kept.sha256 != fingerprint(kept.content):
        raise MiniGPTError(f"{path} is damaged.")
    try:
        return TypeAdapter(kind).validate_json(kept.content)
    except ValidationError:
        raise MiniGPTError(f"{path} is not a valid record.") from None


def write_signed(path: Path, value: object) -> None:
    """Write a record as plain JSON with the fingerprint of its other fields as the field `digest`."""
    plain = to_plain(value)
    write_json(path, plain | {DIGEST: fingerprint(plain)})


def read_signed(path: Path, kind: type[T]) -> T:
    """Read a record that :func:`write_signed` wrote; one without a digest is accepted as it is.

    Raises:
        MiniGPTError: the file is missing or damaged, or is no such record.
    """
    value = read_json(path, kind)
    fields = load_json(path.read_bytes())
    digest = fields.pop(DIGEST, None)
    if digest is not None and digest != fingerprint(fields):
        raise MiniGPTError(f"{path} is damaged: it is not what was written.")
    return value
