"""Plain text and Markdown: the file is one document."""

from __future__ import annotations

from collections.abc import Iterator

from minigpt.documents.base import Row, Source, paragraphs
from minigpt.documents.encodings import text_of


def read(source: Source) -> Iterator[Row]:
    """Yield the text; the lines of a paragraph are joined."""
    yield {"text": paragraphs(text_of(source))}
