"""PDF files: the text of their pages, without the lines that every page repeats."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO

from minigpt.documents.base import MAX_PAGES, Row, Source, Unread, check_text, lines

# Fewest pages on which a first or last line is looked for that repeats, and the share of pages that must have it.
FEWEST_PAGES = 3
REPEATED = 0.5
# Lines at the top and at the bottom of a page that may be a header or a footer.
EDGE = 2
# Share of the longest line from which a line is full, so that its sentence may go on in the next one.
FULL = 0.6


def read(source: Source) -> Iterator[Row]:
    """Yield the text of all pages as one document.

    Raises:
        Unread: It needs a password, is damaged, or its pages hold no text, as scanned ones.
    """
    from pypdf import PasswordType, PdfReader
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        document = PdfReader(BytesIO(source.data()), strict=False)
        if document.is_encrypted and document.decrypt("") == PasswordType.NOT_DECRYPTED:
            raise Unread("password-protected")
        if len(document.pages) > MAX_PAGES:
            raise Unread(f"more than {MAX_PAGES:,} pages")
        pages = [lines(page.extract_text() or "").split("\n") for page in document.pages]
    except PyPdfError as error:
        raise Unread(f"damaged: {error}") from None
    text = check_text("\n".join(joined(page) for page in without_edges(pages)))
    if not text.strip():
        raise Unread("no text on its pages; scanned pages need character recognition first")
    yield {"text": text}


def without_edges(pages: Sequence[Sequence[str]]) -> list[list[str]]:
    """Remove headers, footers and page numbers: lines at the edges of pages that most pages have, but for digits."""
    if len(pages) < FEWEST_PAGES:
        return [list(page) for page in pages]
    seen = Counter(shape for page in pages for shape in {shape_of(line) for line in edges(page)})
    often = {shape for shape, count in seen.items() if count > REPEATED * len(pages)}
    return [
        [line for place, line in enumerate(page) if not (is_edge(place, len(page)) and shape_of(line) in often)]
        for page in pages
    ]


def edges(page: Sequence[str]) -> list[str]:
    """Return the lines at the top and the bottom of a page."""
    return [line for place, line in enumerate(page) if is_edge(place, len(page))]


def is_edge(place: int, count: int) -> bool:
    """Return True for the first and the last lines of a page."""
    return place < EDGE or place >= count - EDGE


def shape_of(line: str) -> str:
    """Return a line with every number replaced, so that page numbers look alike."""
    return re.sub(r"\d+", "#", line)


def joined(page: Sequence[str]) -> str:
    """Join the lines of paragraphs: full ones whose sentence goes on, and words that were divided at the line's end."""
    width = max((len(line) for line in page), default=0)
    text, last = "", 0
    for line in page:
        before = text.rpartition("\n")[2]
        if re.search(r"[^\W\d_]-$", before) and line[:1].islower():
            text = text[:-1] + line
        elif before and before[-1] not in ".:!?" and (last >= FULL * width or line[:1].islower()):
            text += f" {line}"
        else:
            text += f"\n{line}" if text else line
        last = len(line)
    return text
