"""The order in which a reader yields its documents: mixed, and the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TypeVar

Content = TypeVar("Content")


def mixed(groups: Iterable[tuple[str, Content]]) -> list[tuple[str, Content]]:
    """Order documents by a hash of their names, so that the first ones (`limit:`) are a fair sample of all.

    Args:
        groups: Pairs (document name, content).
    """
    return sorted(groups, key=lambda group: hashlib.sha256(group[0].encode("utf-8")).digest())
