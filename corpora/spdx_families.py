"""Large license families of the SPDX license list (CC, GPL, MPL and related ones): for training, never held out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minigpt.types import Document

from .spdx import family_documents


def documents(path: Path) -> Iterator[Document]:
    """Yield passages of the families that :mod:`spdx` leaves out."""
    yield from family_documents(path, large=True)
