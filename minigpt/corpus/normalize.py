"""Normalization of text, so that equal text has one spelling for duplicates, splits and models."""

from __future__ import annotations

import re
import unicodedata

_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ud800-\udfff\ufff9-\ufffb]")
_SPACES = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
# The look behind lets a match begin only where a run begins: else a long run of spaces takes quadratic time.
_TRAILING = re.compile(r"(?<![ \t])[ \t]++(?=\n|\Z)")
_INNER = re.compile(r"(?<=[^\s])[ \t]{2,}|(?<=[^\s])\t")
_BLANK_LINES = re.compile(r"\n{3,}")


def normalize(text: str) -> str:
    r"""Return `text` in Unicode NFC with plain line ends and spaces. Paragraphs and indentation stay.

    Line ends become ``\n``, special spaces become plain spaces, runs of white space inside a line become one space, and
    several blank lines become one. Control characters, soft hyphens, zero-width spaces, byte order marks and lone
    surrogates are removed. Joiners stay, because Indic scripts and emoji need them. Normalizing twice changes nothing
    more.
    """
    text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    text = _SPACES.sub(" ", unicodedata.normalize("NFC", text))
    text = _INNER.sub(" ", _TRAILING.sub("", text))
    return _BLANK_LINES.sub("\n\n", text).strip("\n").rstrip()
