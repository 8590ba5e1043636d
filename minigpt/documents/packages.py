"""Files that are zip archives inside, such as those of Word: checked before a library opens them."""

from __future__ import annotations

from io import BytesIO
from zipfile import BadZipFile, ZipFile

from minigpt.documents.base import MAX_MEMBERS, MAX_UNPACKED, Source, Unread

# Beginning of the older container of Microsoft files. Office puts a document with a password into one.
OLD_CONTAINER = bytes.fromhex("d0cf11e0a1b11ae1")


def package(source: Source) -> BytesIO:
    """Return the file as a stream, if it is a whole zip archive of a bounded size.

    Raises:
        Unread: It needs a password, is damaged or unpacks to too much.
    """
    data = source.data()
    if data.startswith(OLD_CONTAINER):
        raise Unread("password-protected, or in the older format before 2007")
    try:
        with ZipFile(BytesIO(data)) as archive:
            members = archive.infolist()
    except (BadZipFile, RuntimeError, ValueError):
        raise Unread("damaged: not a whole file of its kind") from None
    if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_UNPACKED >> 2:
        raise Unread("unpacks to more than is read of one file")
    if any(member.flag_bits & 1 for member in members):
        raise Unread("password-protected")
    return BytesIO(data)
