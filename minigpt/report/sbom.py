"""Bill of materials of a specialist in CycloneDX 1.6: the model, its parent, its text, the code and their licenses.

The document follows https://cyclonedx.org/docs/1.6/json/: models and texts are components of the types
`machine-learning-model` and `data`, and the card of the model holds its figures. Equal builds give equal documents, so
it has no time of writing.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from minigpt.report.card import base_license, hub_id, model_name
from minigpt.report.figures import HEADLINE, final_stage
from minigpt.results import BuildReport, MetricResult
from minigpt.types import Attribution

FILE = "sbom.json"
SPEC = "1.6"
# Licenses of texts and models by their SPDX names; every other license is written by the name that its source gives.
SPDX = frozenset(
    {"Apache-2.0", "MIT", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0"}
    | {"BSD-2-Clause", "BSD-3-Clause", "ISC", "MPL-2.0", "PSF-2.0", "ODC-By-1.0", "ODbL-1.0", "LGPL-3.0-only"}
)
_BY_LOWER_CASE = {name.lower(): name for name in SPDX}
# Names of entries of `versions` that are no packages of the index.
NO_PACKAGES = frozenset({"python"})


def bill_of_materials(report: BuildReport, hashes: Mapping[str, str]) -> dict[str, Any]:
    """Write the bill of materials of a finished build.

    Args:
        report: its report.
        hashes: SHA-256 of the model's files, by their paths in the build folder.
    """
    build = report.fingerprints.get("build", "")
    parent, texts = _parent(report), [_text(entry) for entry in report.attributions]
    code = [_package(name, version) for name, version in sorted(report.versions.items())]
    model = _model(report, hashes)
    below = [part["bom-ref"] for part in (parent, *texts, *code)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, f"minigpt {build} {sorted(hashes.items())}").urn,
        "version": 1,
        "metadata": {
            "component": model,
            "tools": {"components": [_tool(report)]},
            "properties": _properties(
                {
                    "domain": report.domain,
                    "method": report.method,
                    "preset": report.preset,
                    "seed": str(report.seed),
                    "device": report.device,
                    "build": build,
                    "corpus": report.fingerprints.get("corpus", ""),
                    **{f"personal data, {kind}": str(count) for kind, count in report.personal.items()},
                }
            ),
        },
        "components": [parent, *texts, *code],
        "dependencies": [{"ref": model["bom-ref"], "dependsOn": below}, *({"ref": name} for name in below)],
    }


def files_of(folder: Path) -> list[Path]:
    """List the files of a model that a bill names: all but hidden ones and the card, which people edit."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != "README.md" and not path.name.startswith(".")
    )


def licenses(stated: str | None) -> list[dict[str, Any]]:
    """Write a license as CycloneDX has it: by its SPDX name where it has one; empty if it is not known.

    Args:
        stated: the license as its source gives it.
    """
    if not stated or stated == "unknown":
        return []
    known = _BY_LOWER_CASE.get(stated.lower())
    return [{"license": {"id": known} if known else {"name": stated}}]


def _model(report: BuildReport, hashes: Mapping[str, str]) -> dict[str, Any]:
    """Describe the specialist with its files and its figures."""
    final = final_stage(report)
    files = [
        {"type": "file", "name": name, "bom-ref": f"file:{name}", "hashes": [{"alg": "SHA-256", "content": digest}]}
        for name, digest in sorted(hashes.items())
    ]
    weights = [{"alg": "SHA-256", "content": hashes[name]} for name in hashes if name.endswith("model.safetensors")]
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": model_name(report),
        "version": report.fingerprints.get("build", "") or "1",
        **({"hashes": weights} if len(weights) == 1 else {}),
        "components": files,
        "modelCard": {
            "modelParameters": {
                "task": "text-generation",
                "datasets": [{"ref": f"data:{entry.name}"} for entry in report.attributions],
            },
            "quantitativeAnalysis": {"performanceMetrics": [_figure(metric) for metric in final.metrics]},
        },
        "properties": _properties({"parameters": str(final.parameters), "headline": HEADLINE}),
    }


def _figure(metric: MetricResult) -> dict[str, Any]:
    """Write one number of the report with its interval."""
    return {
        "type": metric.metric,
        "value": f"{metric.value:.6g}",
        "slice": metric.task,
        "confidenceInterval": {"lowerBound": f"{metric.low:.6g}", "upperBound": f"{metric.high:.6g}"},
    }


def _parent(report: BuildReport) -> dict[str, Any]:
    """Describe the parent; of a local one only the last part of its path is written."""
    base = hub_id(report.base_model)
    shown = report.base_model if base or report.base_model.startswith("pypi:") else report.base_model.rsplit("/", 1)[-1]
    return {
        "type": "machine-learning-model",
        "bom-ref": "parent",
        "name": base or shown,
        "licenses": licenses(base_license(report.base_model)),
        "properties": _properties({"reference": shown, "precision": report.base_precision}),
    }


def _text(entry: Attribution) -> dict[str, Any]:
    """Describe one source of text."""
    return {
        "type": "data",
        "bom-ref": f"data:{entry.name}",
        "name": entry.name,
        "licenses": licenses(entry.license),
        **({"description": entry.citation} if entry.citation else {}),
        "properties": _properties(
            {
                "documents": str(entry.documents),
                "bytes": str(entry.bytes),
                "use": "measured only" if entry.measured_only else "trained on and measured",
            }
        ),
    }


def _tool(report: BuildReport) -> dict[str, Any]:
    """Describe the program that made the model."""
    return {"type": "application", "name": "minigpt", "version": report.versions.get("minigpt", "")}


def _package(name: str, version: str) -> dict[str, Any]:
    """Describe a package that the build ran with."""
    if name in NO_PACKAGES:
        return {"type": "platform", "bom-ref": f"code:{name}", "name": name, "version": version}
    return {
        "type": "library",
        "bom-ref": f"code:{name}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version.replace('+', '%2B')}",
        "licenses": licenses(_package_license(name)),
    }


def _package_license(name: str) -> str | None:
    """Return the license that an installed package declares; None if it is not installed or declares none."""
    try:
        fields = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None
    stated = next((fields[name] for name in ("License-Expression", "License") if name in fields), "")
    classified = [line.rsplit(" :: ", 1)[-1] for line in fields.get_all("Classifier") or () if "License ::" in line]
    first = next(iter(stated.strip().splitlines()), "")
    return first if first and len(first) < 80 else next(iter(classified), None)


def _properties(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Write named values that CycloneDX has no field for; empty ones are left out."""
    return [{"name": f"minigpt:{name}", "value": value} for name, value in values.items() if value]
