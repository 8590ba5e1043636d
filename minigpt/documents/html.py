"""HTML pages: the main text without menus, banners and footers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from minigpt.documents.base import Row, Source, check_text, lines
from minigpt.documents.encodings import text_of

# The encoding that a page names in its head.
CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]{2,40})|encoding=["']([\w-]{2,40})["']""", re.I)
HEAD = 4096
# Words by which elements are marked as quotations or signatures, and the most of them that are looked at one by one.
HINTS = re.compile(r"blockquote|quote|signature|cite", re.IGNORECASE)
MOST_MARKED = 1000


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


def marked(page: str, selector: str, unless: Callable[[str], bool]) -> str:
    """Return a page in which the text of some elements is replaced by the mark of a quoted line.

    A page with hundreds of them is returned as it is: the library's time grows with the square of their number.

    Args:
        page: The page.
        selector: CSS selector of the elements.
        unless: Returns True for the text of an element that stays.
    """
    from resiliparse.parse.html import HTMLTree

    if len(HINTS.findall(page)) > MOST_MARKED:
        return page
    tree = HTMLTree.parse(page)
    elements: list[Any] = list(tree.body.query_selector_all(selector)) if tree.body else []
    for element in [item for item in elements if item.parent.closest(selector) is None]:
        if not unless(element.text or ""):
            element.inner_html = "<p>&gt;</p>"
    return str(tree)


def _extracted(page: str, *, main: bool) -> str:
    """Return the text of a page, one paragraph a line."""
    from resiliparse.extract.html2text import extract_plain_text

    return lines(extract_plain_text(check_text(page), main_content=main, alt_texts=False, list_bullets=False))
