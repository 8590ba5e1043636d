"""FINOS Common Domain Model (`finos/` of the finos-cdm package): definitions of financial products and terms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from minigpt.types import Document, Question

from ._definitions import Concept, concepts, documents_from, group_concepts, questions_from
from ._docstrings import DocumentedClass, documented_classes

LICENSE = "Community Specification License 1.0 (CDM); Apache-2.0 (Python distribution)"
# Folders of code without definitions.
SKIP = frozenset({"functions", "ingest"})


def tidy(text: str) -> str:
    """Remove parameter lists and the generator's marks from a doc string."""
    text = re.split(r"\n\s*(?:Parameters|Returns)\s*\n\s*-+", text)[0]
    return re.sub(r"^\s*(?:Deprecated|DEPRECATED)[:\s-]*", "", re.sub(r"\s+", " ", text))


def model_classes(path: Path) -> Iterator[DocumentedClass]:
    """Yield the classes of the model, those of the bundle file (`finos_cdm_product_asset_Leg`) under their folders."""
    items = []
    for item in documented_classes(path, skip=SKIP):
        if item.path == "_bundle.py":
            *folders, name = item.name.removeprefix("finos_").split("_")
            item = replace(item, name=name, path="/".join([*folders, f"{name}.py"]))
        items.append(item)
    yield from sorted(items, key=lambda item: item.path)


def groups(path: Path) -> list[tuple[str, list[Concept]]]:
    """Return the documents of the model as pairs (name, concepts), without functions and mapping code."""
    return group_concepts("cdm", concepts(model_classes(path), tidy=tidy))


def documents(path: Path) -> Iterator[Document]:
    """Yield passages of neighboring definitions."""
    yield from documents_from(groups(path), license=LICENSE)


def questions(path: Path, *, seed: int = 0) -> list[Question]:
    """Make questions that ask which name a definition belongs to, among its siblings."""
    return questions_from(groups(path), seed=seed, license=LICENSE)
