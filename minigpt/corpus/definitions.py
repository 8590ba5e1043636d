"""Definitions that stand in running text: sentences that say what a term means.

Questions made from them put a domain's vocabulary into the healing text in the form in which it is asked for.
Patterns of English only; text of another language simply yields none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from minigpt.types import Document

SHORTEST, LONGEST = 25, 300
MOST_WORDS = 5

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])|\n+")
_TERM = r"(?P<term>[A-Za-z][\w'’-]*(?: [\w'’-]+){0,4})"
_MEANING = rf"[^.;:?!]{{{SHORTEST},{LONGEST}}}"
_GENUS = (
    "process|study|ability|act|practice|part|amount|set|branch|state|condition|right|power|measure|idea|belief|system|"
    "method|theory|degree|principle|doctrine|rate|value|cost|price|sum|tendency|science|difference|total|period|person|"
    "area|region|layer"
)
_KINDS = f"an?|any|one of the|the (?:{_GENUS})"
_PATTERNS = (
    re.compile(rf"^(?:An? |The )?{_TERM} (?:is|are) (?P<meaning>(?:{_KINDS}) {_MEANING})\.$"),
    re.compile(rf"^(?:An? |The )?{_TERM} (?:refers? to|is defined as|are defined as) (?P<meaning>{_MEANING})\.$"),
    re.compile(
        rf"^(?P<meaning>(?:An?|The|Any|People|Those) {_MEANING}?),? (?:is|are) (?:called|known as|termed) "
        rf"(?:an? |the )?{_TERM}\.$"
    ),
)
_NO_TERM = frozenset(
    """
    a also although an and another any as at because both but by during each every example excluding few
    finally first following for former goal her here his however if in issue it its latter many most my neither
    next no not now of often on one only or other our problem purpose question reason result second several she
    simply since some such that the their then there these they third this those though to today typically
    unlike usually we what when where whether which while who whose with within without you your
    """.split()  # noqa: SIM905 (a word a line would be a page)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A term and its meaning, as a passage of `source` gives them."""

    term: str
    meaning: str
    source: str
    license: str = "unknown"


def definitions(documents: Iterable[Document]) -> list[Definition]:
    """Every definition found, the first of each term, in the order of the documents."""
    found: dict[str, Definition] = {}
    for document in documents:
        for term, meaning in _defined(document.text):
            found.setdefault(
                term.lower(),
                Definition(term=term, meaning=meaning, source=document.source, license=document.license),
            )
    return list(found.values())


def _defined(text: str) -> Iterator[tuple[str, str]]:
    for sentence in _SENTENCE_END.split(text):
        matches = (pattern.match(sentence.strip()) for pattern in _PATTERNS)
        match = next((each for each in matches if each is not None), None)
        if match is not None and _is_term(match["term"], match["meaning"]):
            yield match["term"], match["meaning"]


def _is_term(term: str, meaning: str) -> bool:
    """Whether it can be a term: short, no pronoun or conjunction in it, and not part of its own meaning."""
    parts = term.lower().split()
    return (
        len(term) > 3
        and len(parts) <= MOST_WORDS
        and _NO_TERM.isdisjoint({*parts[:1], *parts[-1:]})
        and term.lower() not in meaning.lower()
    )
