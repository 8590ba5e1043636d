"""Archives: their members are read from memory like files of a folder; nothing is unpacked to disk."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import PurePosixPath
from zipfile import BadZipFile, ZipFile

from minigpt.documents.base import MAX_FILE, MAX_MEMBERS, MAX_UNPACKED, Skipped, Source, Unread

Member = Source | Skipped


def read_zip(source: Source) -> Iterator[Member]:
    """Yield the files of a zip archive, and those that are left out.

    Raises:
        Unread: It is damaged, or unpacks to too much.
    """
    with source.opener() as stream:
        try:
            archive = ZipFile(stream)
        except RuntimeError:  # of the library, for versions of the format that it does not know
            raise Unread("a zip archive of a newer version than can be read") from None
        except (BadZipFile, ValueError):
            raise Unread("damaged: not a whole zip archive") from None
        with archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            check_total(len(members), sum(member.file_size for member in members))
            for member in members:
                reason = "password-protected" if member.flag_bits & 1 else bad_member(member.filename, member.file_size)
                try:
                    data = b"" if reason else archive.read(member)
                except (BadZipFile, OSError, EOFError, zlib.error, RuntimeError):
                    data, reason = b"", "damaged inside its archive"
                yield member_of(source, member.filename, data, reason)


def read_tar(source: Source) -> Iterator[Member]:
    """Yield the files of a tar archive, also a compressed one, and those that are left out.

    Raises:
        Unread: It is damaged, or unpacks to too much.
    """
    count = size = 0
    with source.opener() as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:*") as archive:
                for member in archive:
                    if member.isdir():
                        continue
                    count, size = count + 1, size + member.size
                    check_total(count, size)
                    reason = bad_member(member.name, member.size) if member.isreg() else "a link or a device"
                    content = None if reason else archive.extractfile(member)
                    yield member_of(source, member.name, content.read() if content else b"", reason)
        except (tarfile.TarError, EOFError, OSError, zlib.error):
            raise Unread("damaged: it cannot be unpacked to its end") from None


def member_of(source: Source, name: str, data: bytes, reason: str) -> Member:
    """Return a member as a source of its own, or the reason why it is left out."""
    # Only what is inside the archive may stand in the path, whatever the archive calls its member.
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    file = "/".join([source.file, *parts])
    if reason:
        return Skipped(file=file, reason=reason)
    return Source(file=file, size=len(data), opener=partial(BytesIO, data), beside=source.beside)


def bad_member(name: str, size: int) -> str:
    """Say why a member is not read; empty if nothing speaks against it."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return "its path leads out of the archive"
    return f"larger than the {MAX_FILE >> 20:,} MB that are read of one file" if size > MAX_FILE else ""


def check_total(count: int, size: int) -> None:
    """Refuse an archive that holds too much.

    Raises:
        Unread: It does.
    """
    if count > MAX_MEMBERS or size > MAX_UNPACKED:
        raise Unread(f"more than {MAX_MEMBERS:,} files or {MAX_UNPACKED >> 30} GB when unpacked")
