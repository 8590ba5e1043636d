"""JSON and JSON Lines: an object is a row."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, cast

from minigpt.documents.base import MAX_FILE, MAX_UNPACKED, Row, Source, Table, Unread, check_size
from minigpt.documents.encodings import SAMPLE, decode, fits, guessed, is_damaged, text_of
from minigpt.documents.shapes import shape_of
from minigpt.parsing import Unreadable, load_json

GZIP = b"\x1f\x8b"
# Marks of UTF-16, in which a line does not end with the byte of a line end.
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read(source: Source) -> Iterator[Table]:
    """Yield the tables of a JSON file: its list of objects, all lists of objects in it, or its single object.

    Raises:
        Unread: It is not JSON, or holds no object.
    """
    try:
        value = load_json(text_of(source))
    except Unreadable as error:
        raise Unread(f"damaged: not JSON ({error})") from None
    shape = shape_of(value, source.wanted)
    if not shape.lists:
        raise Unread("no JSON object in it")
    source.notes += shape.notes
    for name, rows in shape.lists.items():
        yield Table(rows=iter(rows), name=name if len(shape.lists) > 1 else "", unit="list")


def read_lines(source: Source) -> Iterator[Table]:
    """Yield the table of a file with one JSON object on each line, also compressed."""
    yield Table(rows=line_rows(source))


def line_rows(source: Source) -> Iterator[Row]:
    """Yield the objects; lines that are none are counted in a note.

    Raises:
        Unread: It unpacks to too much, or a line is too long.
    """
    check_size(source.size, MAX_UNPACKED)
    wrong = size = 0
    with source.opener() as raw:
        beginning = raw.read(2)
        raw.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if beginning == GZIP else raw
        if beginning in WIDE:
            stream = io.BytesIO(text_of(source).encode())
        try:
            named = encoding_of(stream, source)
            while line := stream.readline(MAX_FILE + 1):
                size += len(line)
                check_size(len(line), MAX_FILE)
                check_size(size, MAX_UNPACKED)
                row = row_of(line, named)
                wrong += row is None and bool(line.strip())
                if row is not None:
                    yield row
        except (gzip.BadGzipFile, EOFError):
            raise Unread("damaged: it cannot be unpacked to its end") from None
    if wrong:
        source.notes.append(f"lines left out, because they are no JSON objects: {wrong:,}")


def encoding_of(stream: BinaryIO, source: Source) -> str:
    """Guess the encoding of the lines that are not UTF-8, from all of them in the beginning; empty if all are UTF-8."""
    beginning = b""
    with suppress(OSError, EOFError, zlib.error):  # damage is said when the lines are read
        beginning = stream.read(SAMPLE)
    stream.seek(0)
    lines = [line for line in beginning.split(b"\n")[:-1] if not fits(line, "utf-8")]
    others = b"\n".join(line for line in lines if not is_damaged(line))
    try:
        name = guessed(others)[1] if others else ""
    except Unread:
        return ""
    if name:
        source.notes.append(f"lines that are not UTF-8 are read as {name}")
    return name


def row_of(line: bytes, named: str) -> Row | None:
    """Return the object on a line; None if there is none."""
    try:
        value = load_json(decode(line, named)[0]) if line.strip() else None
    except (Unreadable, Unread):
        return None
    return value if isinstance(value, dict) else None
