"""Word documents: paragraphs and tables in their order, without headers, footers, deleted text and hints of forms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minigpt.documents.base import Row, Source, check_text, lines
from minigpt.documents.packages import package

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
# Copies of a drawing for older programs, whose text would appear twice, and text that was moved away from here.
LEFT_OUT = (f"{MC}Fallback", f"{W}moveFrom")
SPACES = {f"{W}tab": " ", f"{W}br": " ", f"{W}cr": " "}
# Elements that only enclose paragraphs, rows or cells, such as content controls: the fields of a form.
CONTROL = f"{W}sdt"
ENCLOSING = (
    CONTROL, f"{W}sdtContent", f"{W}customXml", f"{W}ins", f"{W}moveTo", f"{MC}AlternateContent", f"{MC}Choice",
)  # fmt: skip


def read(source: Source) -> Iterator[Row]:
    """Yield the text of the document; a row of a table is one line."""
    from docx import Document

    document = Document(package(source))
    parts = [row_or_paragraph(item) for item in inner(document.element.body, f"{W}p", f"{W}tbl")]
    yield {"text": check_text(lines("\n".join(parts)))}


def inner(element: Any, *tags: str) -> Iterator[Any]:
    """Yield the children of an element that have one of the tags, those inside content controls among them."""
    for child in element.iterchildren():
        if child.tag in tags:
            yield child
        elif child.tag in ENCLOSING and not is_hint(child):
            yield from inner(child, *tags)


def is_hint(element: Any) -> bool:
    """Return True for a content control that says what to write into it, or that lists the headings of the document."""
    if element.tag != CONTROL or (properties := element.find(f"{W}sdtPr")) is None:
        return False
    galleries = (item.get(f"{W}val") for item in properties.iter(f"{W}docPartGallery"))
    return properties.find(f"{W}showingPlcHdr") is not None or "Table of Contents" in galleries


def row_or_paragraph(element: Any) -> str:
    """Return the text of a paragraph, or of a table with one line for each row."""
    if element.tag == f"{W}tbl":
        rows = (cells(row) for row in inner(element, f"{W}tr"))
        return "\n".join(" | ".join(cell for cell in row if cell) for row in rows)
    return element_text(element)


def cells(row: Any) -> list[str]:
    """Return the texts of a table row's cells."""
    return [element_text(cell).strip() for cell in inner(row, f"{W}tc")]


def is_left_out(element: Any) -> bool:
    """Return True for an element below which no text is read."""
    return element.tag in LEFT_OUT or is_hint(element)


def element_text(element: Any) -> str:
    """Return the text below an element, with insertions and without deletions that await approval."""
    parts: list[str] = []
    for node in element.iter():
        if node.tag in SPACES or (node.tag == f"{W}p" and parts):
            parts.append(" ")
        elif node.tag == f"{W}t" and not any(map(is_left_out, node.iterancestors(*LEFT_OUT, CONTROL))):
            parts.append(node.text or "")
    return "".join(parts)
