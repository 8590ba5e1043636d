"""Files of a folder and members of its archives, each to be read or with the reason why not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from minigpt.documents.base import Skipped, Source, reason_for
from minigpt.documents.kinds import Kind, kind_of, unread_reason
from minigpt.escaping import valid
from minigpt.lazy import resolve

# Archives inside archives, and attachments of attached mails, are opened to this depth.
DEEPEST = 3
HIDDEN = "hidden: its name begins with a dot"
LINKED = "a link to a folder, which is not followed; put the folder itself there"

Entry = tuple[Source, Kind] | Skipped


def entries(files: Iterable[Source | Skipped]) -> Iterator[Entry]:
    """Yield the files of a folder (:func:`listed`) with their kinds, and those inside archives."""
    for file in files:
        if isinstance(file, Skipped):
            yield file
        else:
            yield from opened(file, depth=0)


def listed(folder: Path) -> Iterator[Source | Skipped]:
    """Yield a file, or the files of a folder and its subfolders; those that cannot be opened with the reason."""
    if folder.is_file():
        yield file_in(folder.parent, folder)
        return
    problems: list[OSError] = []
    for here, folders, files in os.walk(folder, onerror=problems.append):
        closed = {name: reason for name in sorted(folders) if (reason := closed_reason(Path(here, name)))}
        for name, reason in closed.items():
            yield Skipped(file=inside(folder, Path(here, name)) + "/", reason=reason)
        folders[:] = sorted(name for name in folders if name not in closed)
        for name in sorted(files):
            yield file_in(folder, Path(here, name))
    for error in problems:
        yield Skipped(file=inside(folder, Path(error.filename)) + "/", reason=f"cannot be opened: {error.strerror}")


def closed_reason(folder: Path) -> str:
    """Say why the files of a folder are not read; empty if they are. Links could lead in a circle."""
    if folder.name.startswith("."):
        return HIDDEN
    return LINKED if folder.is_symlink() else ""


def file_in(folder: Path, path: Path) -> Source | Skipped:
    """Return a file as a source, or why it cannot be one."""
    file = inside(folder, path)
    if path.name.startswith("."):
        return Skipped(file=file, reason=HIDDEN)
    if not path.is_file():
        return Skipped(file=file, reason="a broken link" if path.is_symlink() else "no ordinary file")
    size = path.stat().st_size
    if size == 0:
        return Skipped(file=file, reason="empty")
    return Source(file=file, size=size, opener=lambda: path.open("rb"))


def inside(folder: Path, path: Path) -> str:
    """Return the path of a file inside the folder."""
    return valid(path.relative_to(folder).as_posix())


def opened(source: Source, *, depth: int) -> Iterator[Entry]:
    """Yield a file with its kind and the files inside it, or the members of an archive."""
    kind = kind_of(source.file)
    if kind is None:
        yield Skipped(file=source.file, reason=unread_reason(source.file))
    elif kind.gives != "archive":
        yield source, kind
        if kind.parts:
            yield from attached(source, kind, depth)
    elif depth == DEEPEST:
        yield Skipped(file=source.file, reason=f"an archive inside {DEEPEST} others")
    else:
        try:
            for member in resolve(kind.read)(source):
                yield from inner(member, depth + 1)
        except Exception as error:  # libraries raise errors of every kind for a damaged file
            yield Skipped(file=source.file, reason=reason_for(error))


def attached(source: Source, kind: Kind, depth: int) -> Iterator[Entry]:
    """Yield the files inside a file that is read itself. That it is damaged is said when it is read."""
    with suppress(Exception):  # libraries raise errors of every kind for a damaged file
        for member in resolve(kind.parts)(source):
            if depth == DEEPEST:
                yield Skipped(file=member.file, reason=f"attached inside {DEEPEST} others")
            else:
                yield from inner(member, depth + 1)


def inner(member: Source | Skipped, depth: int) -> Iterator[Entry]:
    """Yield a member of an archive as `opened` does, unless it is left out."""
    if isinstance(member, Skipped):
        yield member
    elif any(part.startswith((".", "__MACOSX")) for part in member.file.split("/")):
        yield Skipped(file=member.file, reason=HIDDEN)
    elif not member.size:
        yield Skipped(file=member.file, reason="empty")
    else:
        yield from opened(member, depth=depth)


def census(folder: Path) -> dict[str, int]:
    """Count the files of a folder by kind; an archive counts as one file, and what is not read as `not read`."""
    counts: dict[str, int] = {}
    for item in listed(folder):
        kind = None if isinstance(item, Skipped) else kind_of(item.file)
        name = kind.name if kind else "not read"
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
