"""Definitions in running text: sentences that say what a term means.

Healing trains on questions made from them, so that the specialist learns the domain's terms in the form of the
evaluation's questions. The patterns are English; text in another language yields no definitions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from minigpt.types import Document

# Characters of a meaning, at least and at most.
SHORTEST, LONGEST = 25, 300
# Words of a term at most.
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
# Words that no term begins or ends with.
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
    """A term and its meaning, as a passage gives them.

    Attributes:
        term: The term.
        meaning: Words that define it.
        source: Name of the document that defines it.
        license: License of that document's text.
    """

    term: str
    meaning: str
    source: str
    license: str = "unknown"


def definitions(documents: Iterable[Document]) -> list[Definition]:
    """Return the first definition of each term, in the order of the documents."""
    by_term: dict[str, Definition] = {}
    for document in documents:
        for term, meaning in _defined_terms(document.text):
            by_term.setdefault(
                term.lower(),
                Definition(term=term, meaning=meaning, source=document.source, license=document.license),
            )
    return list(by_term.values())


def _defined_terms(text: str) -> Iterator[tuple[str, str]]:
    """Yield (term, meaning) of each sentence that defines a term."""
    for sentence in _SENTENCE_END.split(text):
        matches = (pattern.match(sentence.strip()) for pattern in _PATTERNS)
        match = next(filter(None, matches), None)
        if match is not None and _is_term(match["term"], match["meaning"]):
            yield match["term"], match["meaning"]


def _is_term(term: str, meaning: str) -> bool:
    """Return True for a short term without a pronoun or conjunction at its ends that is not in its own meaning."""
    parts = term.lower().split()
    return (
        len(term) > 3
        and len(parts) <= MOST_WORDS
        and _NO_TERM.isdisjoint({*parts[:1], *parts[-1:]})
        and term.lower() not in meaning.lower()
    )
