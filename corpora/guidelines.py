"""Clinical guidelines in short (`guidelines/content/` of open-medicine): how a condition is found, graded and treated.

A document is a guideline (one folder of Markdown files). Tables, pointers to the package's calculators and code are
left out; headings start their paragraphs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from minigpt.corpus.prose import MIN_CHARACTERS, clean, documents_of
from minigpt.errors import CorpusError
from minigpt.types import Document

from ._markdown import blocks

LICENSE = "MIT (open-medicine)"
GRADE = re.compile(r"\s*\((?:Class|Grade|Level|LOE|COR|Strong|Weak|Conditional|Evidence|Not [Gg]raded)\b[^()]*\)")


def documents(path: Path) -> Iterator[Document]:
    """Yield the passages of each guideline.

    Raises:
        CorpusError: The folder holds no guidelines.
    """
    folders = sorted({file.parent for file in path.rglob("*.md")})
    if not folders:
        raise CorpusError(f"{path} holds no guidelines (*.md).")
    for folder in folders:
        texts = [file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.md"))]
        lines = [line for text in texts for line in paragraphs(text)]
        if sum(map(len, lines)) >= MIN_CHARACTERS:
            yield from documents_of(f"guidelines:{folder.name}", lines, license=LICENSE)


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a guideline's Markdown without the grades of its recommendations."""
    kept = (tidy(block) for block in blocks(text) if "OpenMedicine" not in block)
    return [line for line in kept if len(line.split()) > 2]


def tidy(block: str) -> str:
    """Turn a block into running text."""
    return clean(re.sub(r"[*_]{1,3}", "", GRADE.sub("", block)))
