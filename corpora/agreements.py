"""Commercial agreements (`licensedcode/data/licenses/` of licensedcode-data): software licenses and terms of service.

Of the ScanCode license texts only those that are no open-source license: agreements of companies with their customers.
Versions of one agreement are one document.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from minigpt.corpus.prose import documents_of
from minigpt.errors import CorpusError
from minigpt.types import Document

from ._order import mixed
from .spdx import is_english, paragraphs

LICENSE = "CC BY 4.0 (ScanCode license data set); each agreement belongs to its publisher"
CATEGORIES = frozenset({"Commercial", "Proprietary Free"})
# Characters of an agreement, at least: shorter texts are notices.
SHORTEST = 3000
FRONT = re.compile(r"---\n(?P<front>.*?)\n---\n(?P<text>.*)", re.DOTALL)


def agreements(path: Path) -> dict[str, list[str]]:
    """Read the agreements in English by publisher and product, newest names last.

    Raises:
        CorpusError: The folder holds no agreements.
    """
    by_product: dict[str, list[str]] = defaultdict(list)
    for file in sorted(path.glob("*.LICENSE")):
        match = FRONT.fullmatch(file.read_text(encoding="utf-8", errors="replace"))
        if match is None or not is_commercial(match["front"]):
            continue
        if len(match["text"]) >= SHORTEST and is_english(match["text"]):
            by_product[product(file.stem)].append(match["text"])
    if not by_product:
        raise CorpusError(f"{path} holds no commercial agreements (*.LICENSE with a category in front).")
    return dict(by_product)


def is_commercial(front: str) -> bool:
    """Return True if the front matter names a commercial category and no SPDX license."""
    values = dict(re.findall(r"^(category|spdx_license_key): *(.*?)\s*$", front, re.MULTILINE))
    key = values.get("spdx_license_key", "")
    return values.get("category") in CATEGORIES and (not key or key.startswith("LicenseRef"))


def product(stem: str) -> str:
    """Return the name of an agreement without version and date: `google-maps-tos` for `google-maps-tos-2020-04-02`."""
    return re.sub(r"(?:-v?\d[\d.]*)+$", "", stem)


def documents(path: Path) -> Iterator[Document]:
    """Yield the passages of the last version of each agreement, in mixed order."""
    for source, texts in mixed((f"agreements:{name}", texts) for name, texts in agreements(path).items()):
        yield from documents_of(source, paragraphs(texts[-1]), license=LICENSE)
