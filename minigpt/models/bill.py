"""Bills of materials of finished models, from their reports and the hashes in the catalog."""

from __future__ import annotations

from typing import Any

from minigpt.models import catalog
from minigpt.models.find import find_report
from minigpt.report.sbom import bill_of_materials


def bill_of(name: str) -> dict[str, Any]:
    """Write the bill of materials of a model of the catalog; its hashes are those that were entered.

    Args:
        name: a catalog id, or a domain (its latest entry).

    Raises:
        UnknownName: the catalog has no such model.
        MiniGPTError: its report cannot be read.
    """
    ids = {entry.id for entry in catalog.entries()}
    entry = catalog.get(name) if name in ids else catalog.latest(name)
    hashes = {path: digest for path, digest in entry.hashes.items() if "/" in path and not path.endswith("README.md")}
    return bill_of_materials(find_report(entry.path), hashes)
