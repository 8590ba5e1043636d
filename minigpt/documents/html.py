"""HTML pages: the main text without menus, banners and footers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from minigpt.documents.base import Row, Source, check_text, lines
from minigpt.documents.encodings import text_of

# The encoding that a page names in its head.
CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]{2,40})|encoding=["']([\w-]{2,40})["']""", re.I)
HEAD = 4096


def read(source: Source) -> Iterator[Row]:
    """Yield the main text of a page."""
    with source.opener() as stream:
        match = CHARSET.search(stream.read(HEAD))
    named = next((part for part in match.groups() if part), b"").decode("ascii") if match else ""
    # A page whose bytes show that its head can be read in ASCII is not UTF-16, whatever it says.
    yield {"text": main_text(text_of(source, "" if named.lower().startswith("utf-") else named))}


def main_text(page: str) -> str:
    """Return the main text of an HTML page; all its text where no main text stands out.

    Boilerplate is removed by the rules of Resiliparse (Bevendorff et al. 2018, "Elastic ChatNoir").
    """
    return _extracted(page, main=True) or whole_text(page)


def whole_text(page: str) -> str:
    """Return all text of an HTML page that a reader sees."""
    return _extracted(page, main=False)


def _extracted(page: str, *, main: bool) -> str:
    """Return the text of a page, one paragraph a line."""
    from resiliparse.extract.html2text import extract_plain_text

    return lines(extract_plain_text(check_text(page), main_content=main, alt_texts=False, list_bullets=False))
