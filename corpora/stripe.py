"""Stripe API (`stripe/` of the stripe package): doc strings on payments, billing, tax, cards and accounts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from minigpt.types import Document, Question

from ._definitions import Concept, concepts, documents_from, group_concepts, questions_from
from ._docstrings import documented_classes

LICENSE = "MIT"
# Files and folders that repeat the resources or hold no definitions.
SKIP = frozenset({"params", "events", "_event_notification_handler.py", "_http_client.py", "_api_requestor.py"})


def tidy(text: str) -> str:
    """Turn a doc string into one line without pointers to related guides."""
    text = re.sub(r"(?:For more (?:information|details)|Related guides?|To learn more)[^.]*?[.:][^\n]*", "", text)
    return re.sub(r"\s+", " ", re.sub(r"(?m)^\s*[-*]\s+", "", text))


def groups(path: Path) -> list[tuple[str, list[Concept]]]:
    """Return the documents of the resources as pairs (name, concepts)."""
    return group_concepts("stripe", concepts(documented_classes(path, skip=SKIP), tidy=tidy))


def documents(path: Path) -> Iterator[Document]:
    """Yield passages of neighboring definitions."""
    yield from documents_from(groups(path), license=LICENSE)


def questions(path: Path, *, seed: int = 0) -> list[Question]:
    """Make questions that ask which field a definition belongs to, among the fields of its object."""
    return questions_from(groups(path), seed=seed, license=LICENSE)
