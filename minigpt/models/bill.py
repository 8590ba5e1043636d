"""Bills of materials of finished models, from their reports and the hashes in the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigpt.models import catalog
from minigpt.models.find import find_report
from minigpt.report.sbom import bill_of_materials

# Kinds of components in plain words.
KINDS = {"machine-learning-model": "model", "data": "text", "library": "package", "platform": "program"}
# Stands for a license that nobody states.
NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class LicenseRow:
    """License of one component of a model.

    Attributes:
        license: its SPDX name, or the name that its source gives.
        kind: `model` (the parent), `text`, `package` or `program`.
        name: the component.
        version: its version; empty for models and texts.
    """

    license: str
    kind: str
    name: str
    version: str


def licenses_of(name: str) -> tuple[LicenseRow, ...]:
    """List the licenses of a model's parent, texts and packages; unknown ones first, since they need a person.

    Args:
        name: a catalog id, or a domain (its latest entry).

    Raises:
        UnknownName: the catalog has no such model.
        MiniGPTError: its report cannot be read.
    """
    rows = [
        LicenseRow(
            license=", ".join(part["license"].get("id") or part["license"]["name"] for part in component["licenses"])
            or NOT_STATED,
            kind=KINDS.get(component["type"], component["type"]),
            name=component["name"],
            version=component.get("version", ""),
        )
        for component in bill_of(name)["components"]
        if "licenses" in component
    ]
    order = tuple(KINDS.values())
    return tuple(
        sorted(rows, key=lambda row: (row.license != NOT_STATED, order.index(row.kind), row.license, row.name))
    )


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
