"""Increase API (`increase/types/` of the increase package): doc strings on bank accounts, transfers, cards, disputes.

Only sentences of some length about money and banking; what they say of the exchange of records is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from minigpt.corpus.prose import documents_of, sentences
from minigpt.types import Document

from ._definitions import Concept, concepts, group_concepts
from ._docstrings import documented_classes
from ._order import mixed

LICENSE = "Apache-2.0 (increase package)"
# Words of sentences that say how a record is sent, not what it means.
TECHNICAL = re.compile(
    r"\b(?:if and only if|JSON|documentation|webhooks?|constant|idempoten\w+|sandbox|API|ISO 8601|cursor|endpoint|"
    r"simulat\w+|will contain|identifiers? (?:of|for)|objects?|redirect\w*|URL|query|string|events?|specific to|"
    r"filter|enum|parameters?|fields?|dashboard|support@\S+|Increase's)\b",
    re.IGNORECASE,
)
# Lists of the values of a field.
VALUES = re.compile(r"(?m)^\s*-\s+`[^`]+`.*(?:\n\s{2,}\S.*)*")
# Characters of a definition that is kept, at least.
SHORTEST = 70


def tidy(text: str) -> str:
    """Turn a doc string into one line about the meaning of its subject; empty if little is left."""
    plain = re.sub(r"\s+", " ", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", VALUES.sub("", text)))
    kept = " ".join(part for part in sentences(plain) if not TECHNICAL.search(part)).strip()
    return kept if len(kept) >= SHORTEST else ""


def groups(path: Path) -> list[tuple[str, list[Concept]]]:
    """Return the documents of the API's objects as pairs (name, concepts)."""
    return group_concepts("increase", concepts(documented_classes(path), tidy=tidy))


def documents(path: Path) -> Iterator[Document]:
    """Yield passages of neighboring definitions, in mixed order."""
    for source, items in mixed(groups(path)):
        yield from documents_of(source, [line for item in items for line in item.paragraphs], license=LICENSE)
