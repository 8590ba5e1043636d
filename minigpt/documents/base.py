"""Records that readers of documents share, the reason for leaving something out, and the bounds of what is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from minigpt.errors import first_line

Row = Mapping[str, Any]

# Largest file that is read whole, in bytes.
MAX_FILE = 1 << 28
# Largest table that is read row by row, and the most that is unpacked from one archive or compressed file, in bytes.
MAX_UNPACKED = 1 << 32
# Most members of an archive.
MAX_MEMBERS = 100_000
# Longest text of one document, in characters.
MAX_TEXT = 50_000_000
# Most pages of a document.
MAX_PAGES = 20_000


class Unread(Exception):
    """A file, or a part of one, that is left out; the message says why in a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file that was left out.

    Attributes:
        file: Its path inside the folder.
        reason: Why it was left out.
    """

    file: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Source:
    """A file of a folder, or a member of an archive.

    Attributes:
        file: Its path inside the folder, with `/` between the parts; an archive counts as a folder.
        size: Its size in bytes.
        opener: Opens it for reading; the stream can go back.
        notes: Remarks of its reader, such as an encoding or rows that were left out.
        beside: File in whose folder its text goes, if not its own: the mail, for an attachment.
        wanted: Column of the text that the user names, if the file is a table.
    """

    file: str
    size: int
    opener: Callable[[], BinaryIO]
    notes: list[str] = field(default_factory=list)
    beside: str = ""
    wanted: str | None = None

    def data(self) -> bytes:
        """Read the file whole.

        Raises:
            Unread: It is larger than is read whole.
        """
        check_size(self.size, MAX_FILE)
        with self.opener() as stream:
            content = stream.read(MAX_FILE + 1)
        check_size(len(content), MAX_FILE)
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that share their columns.

    Attributes:
        rows: The rows.
        name: Name of the table in its file, such as a sheet's; empty if the file is the table.
        unit: Noun for a table that is a part of its file.
    """

    rows: Iterator[Row]
    name: str = ""
    unit: str = "sheet"


def check_size(size: int, limit: int) -> None:
    """Refuse what is larger than is read.

    Raises:
        Unread: It is larger.
    """
    if size > limit:
        raise Unread(f"larger than the {limit >> 20:,} MB that are read of one file")


def check_text(text: str) -> str:
    """Return a text, unless it is longer than a document may be.

    Raises:
        Unread: It is longer.
    """
    if len(text) > MAX_TEXT:
        raise Unread(f"more than {MAX_TEXT:,} characters of text")
    return text


def paragraphs(text: str) -> str:
    """Join the lines of paragraphs, which empty lines separate; each paragraph becomes one line."""
    blocks = re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n").replace("\r", "\n"))
    joined = (" ".join(line.strip() for line in block.split("\n") if line.strip()) for block in blocks)
    return "\n".join(block for block in joined if block)


def lines(text: str) -> str:
    """Return a text with its lines stripped and without empty ones."""
    stripped = (re.sub(r"[ \t\xa0]+", " ", line).strip() for line in text.splitlines())
    return "\n".join(line for line in stripped if line)


def reason_for(error: Exception) -> str:
    """Say in a few words why a file could not be read."""
    if isinstance(error, Unread):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"damaged: {type(error).__name__}: {first_line(error)[:120]}"
