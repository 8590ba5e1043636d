"""Documents from short entries (a name and its definition), shared by the readers of medical vocabularies.

Entries that are worded alike stand side by side in a sorted list, so neighbors form a document together and go to one
split as a whole. Of definitions with one sentence pattern only the first ones are kept: more would teach the pattern.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# Characters from which a document is complete.
ENOUGH = 1500
# Words at the beginning of a definition that make its pattern.
PATTERN_WORDS = 6
# Definitions of one pattern that are kept.
PATTERN_REPEATS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedText:
    """A name with its definition.

    Attributes:
        name: Name of the thing.
        text: Text that defines it.
        family: Name shared by entries that are worded alike; they stay in one document.
        group: Broad kind of the thing; only entries of one kind share a document.
    """

    name: str
    text: str
    family: str
    group: str = ""

    @property
    def paragraph(self) -> str:
        """The entry as one line: `Name: definition`."""
        return f"{self.name[:1].upper()}{self.name[1:]}: {self.text}"


def family_of(name: str) -> str:
    """Return a name without its number, type and remarks: `aortic aneurysm` for `Aortic aneurysm, familial 4`."""
    head = re.split(r"[,(;]", name.casefold())[0]
    return re.sub(r"\s+(?:type\s+)?(?:\d+[a-z]?|[ivx]+|[a-z])$", "", head.strip()).strip()


def select(entries: Iterable[NamedText]) -> list[NamedText]:
    """Leave out definitions that repeat an earlier one word for word, or that have a pattern of many earlier ones."""
    known: set[str] = set()
    repeats: Counter[str] = Counter()
    kept = []
    for entry in entries:
        words = re.findall(r"[a-z]+", entry.text.casefold())
        key, pattern = " ".join(words), " ".join(words[:PATTERN_WORDS])
        if key in known or repeats[pattern] >= PATTERN_REPEATS:
            continue
        known.add(key)
        repeats[pattern] += 1
        kept.append(entry)
    return kept


def group_entries(prefix: str, entries: Iterable[NamedText]) -> list[tuple[str, list[NamedText]]]:
    """Group sorted entries into documents of at least `ENOUGH` characters that end where a family or a kind ends.

    Args:
        prefix: Beginning of the documents' names.
        entries: The entries in any order.

    Returns:
        Pairs (document name, entries).
    """
    groups: list[tuple[str, list[NamedText]]] = []
    current: list[NamedText] = []
    size = 0
    for entry in sorted(entries, key=lambda item: (item.group, item.family, item.name.casefold())):
        new_family = bool(current) and entry.family != current[-1].family
        new_group = bool(current) and entry.group != current[-1].group
        if new_group or (new_family and size >= ENOUGH):
            groups.append((f"{prefix}:{current[0].family}", current))
            current, size = [], 0
        current.append(entry)
        size += len(entry.paragraph)
    if current:
        groups.append((f"{prefix}:{current[0].family}", current))
    return groups
