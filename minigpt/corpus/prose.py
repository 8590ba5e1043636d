"""Tools for readers: clean running text, passages of a useful length, and identifiers as words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from minigpt.types import Document

# Longest passage, in characters.
MAX_CHARACTERS = 3000
# Shortest text that a reader keeps as a document, in characters.
MIN_CHARACTERS = 300

MARKDOWN_LINK = re.compile(r"!?\[([^\]\[]*)\]\((?:[^()\s]|\([^()]*\))*\)")
HTML_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
REFERENCE = re.compile(r"\s*[\[(](?:(?:PMID|DOI|OMIM|ORPHA|UMLS|HPO|ISBN|http|www)[^\])]*)[\])]", re.IGNORECASE)
URL = re.compile(r"\s*\(?\b(?:https?://|www\.)\S+?(?=[).,;]*(?:\s|$))\)?")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z(\"'])")


def clean(text: str) -> str:
    """Turn a text into one paragraph with a final period, without markup, links and reference marks."""
    text = MARKDOWN_LINK.sub(r"\1", text)
    text = HTML_TAG.sub("", REFERENCE.sub("", text))
    text = URL.sub("", text).replace("`", "").replace("**", "").replace("\\n", " ")
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\s+([,.;:!?])", r"\1", text)
    text = re.sub(r"\(\s*\)", "", text).strip(" -")
    if text and text[-1] not in ".!?:\"')":
        text += "."
    return text.replace("..", ".") if text.endswith("..") and not text.endswith("...") else text


def sentences(text: str) -> list[str]:
    """Cut a text after its sentence ends. It also cuts after some abbreviations, which does not matter for passages."""
    return SENTENCE.split(text)


def words_of(identifier: str) -> str:
    """Turn an identifier such as `DayCountFraction` or `statement_descriptor` into words; keep abbreviations whole."""
    text = identifier.replace("_", " ")
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def passages(paragraphs: Iterable[str], *, limit: int = MAX_CHARACTERS) -> Iterator[str]:
    """Join paragraphs into passages of at most `limit` characters.

    A longer paragraph is cut between sentences. A last passage under a tenth of `limit` is joined to the one before
    it, which can then be longer than `limit`.
    """
    done: list[str] = []
    current: list[str] = []
    size = 0
    for piece in (part for paragraph in paragraphs for part in cut(paragraph, limit)):
        if current and size + len(piece) + 1 > limit:
            done.append("\n".join(current))
            current, size = [], 0
        current.append(piece)
        size += len(piece) + 1
    if current:
        done.append("\n".join(current))
    if len(done) > 1 and len(done[-1]) < limit // 10:
        done[-2:] = [f"{done[-2]}\n{done[-1]}"]
    yield from done


def cut(paragraph: str, limit: int) -> Iterator[str]:
    """Cut a paragraph into pieces of at most `limit` characters, between sentences or else between words."""
    current = ""
    units = [unit for unit in sentences(paragraph) if unit]
    for unit in units:
        while len(unit) > limit:
            head = unit[:limit].rsplit(" ", 1)[0] or unit[:limit]
            if current:
                yield current
                current = ""
            yield head
            unit = unit[len(head) :].lstrip()
        if current and len(current) + len(unit) + 1 > limit:
            yield current
            current = ""
        current = f"{current} {unit}".strip()
    if current:
        yield current


def documents_of(source: str, paragraphs: Sequence[str], *, license: str) -> Iterator[Document]:
    """Yield a document as passages that share its name, so that all of them go to the same split.

    Args:
        source: Name of the document.
        paragraphs: Paragraphs of its text.
        license: License of the text.
    """
    texts = list(passages(paragraphs))
    for number, text in enumerate(texts, start=1):
        yield Document(text=text, source=source, license=license, ends=number == len(texts))
