"""Text of bytes whose encoding nobody names: marks at the beginning, UTF-8, UTF-16, or else the likeliest code page."""

from __future__ import annotations

import codecs
import re
from contextlib import suppress

from minigpt.documents.alphabets import likeliest
from minigpt.documents.base import Source, Unread

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Bytes that are looked at to guess an encoding.
SAMPLE = 1 << 18
# Share of zero bytes at every second place from which a text without a mark is UTF-16. Each Latin letter has one.
ZEROS = 0.3
# Number, and share, of bytes above 127 up to which a text in an unknown code page is taken for a Western one. Accented
# letters are a tenth of French text; in Greek or Cyrillic code pages nearly every letter is above 127.
FEW = 100
WESTERN = 0.2
# Characters beyond ASCII for each wrong byte from which a text is damaged UTF-8.
FEWEST_RIGHT = 3
DAMAGED = "utf-8 with damaged characters"
BEYOND_ASCII = re.compile(rb"[\x80-\xff]")


def text_of(source: Source, named: str = "") -> str:
    """Read a file as text, and note its encoding unless it is UTF-8.

    Args:
        source: The file.
        named: Encoding that the file itself names; it is tried after the marks and UTF-8.

    Raises:
        Unread: It is too large, or no text.
    """
    text, encoding = decode(source.data(), named)
    if encoding != "utf-8":
        source.notes.append(f"read as {encoding}")
    return text


def decode(data: bytes, named: str = "") -> tuple[str, str]:
    """Return the text and the name of its encoding.

    Args:
        data: The bytes.
        named: Encoding that the text itself names; it is tried after the marks and UTF-8.

    Raises:
        Unread: The bytes are no text.
    """
    if marked := next((name for mark, name in MARKS if data.startswith(mark)), ""):
        return data.decode(marked, "replace"), marked.removesuffix("-sig")
    if b"\0" in data[:SAMPLE]:
        name = wide(data[:SAMPLE])
        return data.decode(name, "replace"), name
    with suppress(UnicodeDecodeError):
        return data.decode("utf-8"), "utf-8"
    if is_damaged(data):
        return data.decode("utf-8", "replace"), DAMAGED
    try:
        return data.decode(named or "ascii"), named.lower()
    except (UnicodeDecodeError, LookupError):
        return guessed(data)


def is_damaged(data: bytes) -> bool:
    """Return True for UTF-8 with a few wrong bytes: they do not make a text of another encoding of it."""
    text = from_first_letter(data).decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    return wrong * FEWEST_RIGHT <= len(text) - wrong - sum(map(str.isascii, text))


def wide(sample: bytes) -> str:
    """Tell UTF-16 without a mark from data that is no text.

    Raises:
        Unread: It is no text.
    """
    half = max(1, len(sample) // 2)
    if sample[1::2].count(0) / half >= ZEROS > sample[::2].count(0) / half:
        return "utf-16-le"
    if sample[::2].count(0) / half >= ZEROS > sample[1::2].count(0) / half:
        return "utf-16-be"
    raise Unread("binary data, not text")


def guessed(data: bytes) -> tuple[str, str]:
    """Decode text of an unknown 8-bit or East Asian encoding.

    Raises:
        Unread: The bytes are no text.
    """
    sample = from_first_letter(data)
    if sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in sample) > len(sample) / 100:
        raise Unread("binary data, not text")
    high = sum(byte > 127 for byte in sample)
    alphabet = likeliest(sample)
    name = alphabet.page
    if not alphabet.fits and (high > FEW or high / len(sample) > WESTERN or not fits(sample, name)):
        best = best_guess(sample)
        if not best and high / len(sample) > WESTERN:
            raise Unread("binary data, or text in an unknown encoding")
        name = best or name
    return data.decode(name, "replace"), name


def from_first_letter(data: bytes) -> bytes:
    """Return a part of a text to guess its encoding by. Most of it stands after the first letter beyond ASCII."""
    first = BEYOND_ASCII.search(data)
    start = max(0, first.start() - SAMPLE // 8) if first else 0
    return data[start : start + SAMPLE]


def best_guess(sample: bytes) -> str:
    """Return the likeliest of all encodings, East Asian ones among them; empty if none is likely."""
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    return best.encoding if best is not None else ""


def fits(sample: bytes, encoding: str) -> bool:
    """Return True if an encoding has a character for every byte."""
    try:
        sample.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
