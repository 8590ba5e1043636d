"""EPUB books: the chapters in the order in which they are read."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote
from zipfile import ZipFile

from minigpt.documents.base import Row, Source, Unread, check_text
from minigpt.documents.encodings import decode
from minigpt.documents.html import whole_text
from minigpt.documents.packages import package

CONTAINER = "META-INF/container.xml"
LOCKED = "META-INF/rights.xml"


def read(source: Source) -> Iterator[Row]:
    """Yield the text of a book as one document.

    Raises:
        Unread: It is locked, or not a whole book.
    """
    with ZipFile(package(source)) as archive:
        names = set(archive.namelist())
        if LOCKED in names:
            raise Unread("password-protected: a book with digital rights management")
        try:
            chapters = [archive.read(name) for name in reading_order(archive) if name in names]
        except (KeyError, IndexError, AttributeError):
            raise Unread("damaged: it does not say which chapters it has") from None
    yield {"text": check_text("\n".join(whole_text(decode(chapter)[0]) for chapter in chapters))}


def reading_order(archive: ZipFile) -> list[str]:
    """List the files of the chapters."""
    root = parsed(archive.read(CONTAINER)).find(".//{*}rootfile").get("full-path")
    book = parsed(archive.read(root))
    files = {item.get("id"): item.get("href") for item in book.iterfind(".//{*}manifest/{*}item")}
    order = [files[item.get("idref")] for item in book.iterfind(".//{*}spine/{*}itemref")]
    return [posixpath.normpath(posixpath.join(posixpath.dirname(root), unquote(name))) for name in order]


def parsed(data: bytes) -> Any:
    """Parse XML without entities, the network and bombs."""
    from lxml import etree

    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))
