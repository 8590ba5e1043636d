"""PowerPoint presentations: titles, texts, tables and notes, slide after slide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from minigpt.documents.base import Row, Source, check_text, lines
from minigpt.documents.packages import package


def read(source: Source) -> Iterator[Row]:
    """Yield the text of all slides as one document."""
    from pptx import Presentation

    parts: list[str] = []
    for slide in Presentation(package(source)).slides:
        parts += shape_texts(slide.shapes)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            parts.append(slide.notes_slide.notes_text_frame.text)
    yield {"text": check_text(lines("\n".join(parts).replace("\v", " ")))}


def shape_texts(shapes: Iterable[Any]) -> Iterator[str]:
    """Yield the texts of shapes, of those inside groups, and of the rows of tables."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from shape_texts(shape.shapes)
        elif getattr(shape, "has_table", False):
            for row in shape.table.rows:
                yield " | ".join(text for cell in row.cells if (text := cell.text.strip()))
        elif getattr(shape, "has_text_frame", False):
            yield shape.text_frame.text
