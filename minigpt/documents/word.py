"""Word documents: paragraphs and tables in their order, without headers, footers and deleted text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minigpt.documents.base import Row, Source, check_text, lines
from minigpt.documents.packages import package

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
# Copies of a drawing for older programs; its text would appear twice.
FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
SPACES = {f"{W}tab": " ", f"{W}br": " ", f"{W}cr": " "}


def read(source: Source) -> Iterator[Row]:
    """Yield the text of the document; a row of a table is one line."""
    from docx import Document

    document = Document(package(source))
    parts = [row_or_paragraph(item) for item in document.iter_inner_content()]
    yield {"text": check_text(lines("\n".join(parts)))}


def row_or_paragraph(item: Any) -> str:
    """Return the text of a paragraph, or of a table with one line for each row."""
    element = item._element
    if element.tag == f"{W}tbl":
        rows = (cells(row) for row in element.iterchildren(f"{W}tr"))
        return "\n".join(" | ".join(cell for cell in row if cell) for row in rows)
    return element_text(element)


def cells(row: Any) -> list[str]:
    """Return the texts of a table row's cells."""
    return [element_text(cell).strip() for cell in row.iterchildren(f"{W}tc")]


def element_text(element: Any) -> str:
    """Return the text below an element, with insertions and without deletions that await approval."""
    parts: list[str] = []
    for node in element.iter():
        if node.tag in SPACES or (node.tag == f"{W}p" and parts):
            parts.append(" ")
        elif node.tag == f"{W}t" and not any(True for _ in node.iterancestors(FALLBACK)):
            parts.append(node.text or "")
    return "".join(parts)
