"""European Union law on finance: digital resilience of financial entities (DORA), sustainability reporting (CSRD)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minigpt.types import Document

from .eulaw import act_documents

ACTS = frozenset({"dora", "csrd"})


def documents(path: Path) -> Iterator[Document]:
    """Yield the passages of the acts that :mod:`eulaw` leaves out."""
    yield from act_documents(path, ACTS)
