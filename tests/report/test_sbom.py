"""The bill of materials names model, parent, text, code and licenses, is equal for equal builds, and shows no text."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from minigpt.report.sbom import bill_of_materials, licenses
from minigpt.types import Attribution
from tests.support.reports import make_report

HASHES = {"model/model.safetensors": "ab" * 32, "model/config.json": "cd" * 32}
TEXTS = (
    Attribution(name="notes", license="cc-by-4.0", citation="Doe 2020", documents=3, bytes=400),
    Attribution(name="mine", license="our own", citation="", documents=1, bytes=9, measured_only=True),
    Attribution(name="web", license="unknown", citation="", documents=1, bytes=9),
)


def bill(**changes: Any) -> dict[str, Any]:
    """The bill of a sample report with changes."""
    changes = {"attributions": TEXTS, "personal": {"phone numbers": 4}} | changes
    return bill_of_materials(replace(make_report(), **changes), HASHES)


def component(document: dict[str, Any], reference: str) -> dict[str, Any]:
    """One component by its reference."""
    (match,) = [part for part in document["components"] if part["bom-ref"] == reference]
    return dict(match)


def test_model_parent_text_and_code_are_there() -> None:
    document = bill()
    model = document["metadata"]["component"]
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert [file["name"] for file in model["components"]] == sorted(HASHES)
    assert component(document, "data:notes")["licenses"] == [{"license": {"id": "CC-BY-4.0"}}]
    assert component(document, "data:mine")["licenses"] == [{"license": {"name": "our own"}}]
    assert component(document, "data:web")["licenses"] == []
    report = make_report()
    for name, version in report.versions.items():
        assert component(document, f"code:{name}")["version"] == version


def test_every_reference_is_declared_once() -> None:
    document = bill()
    names = [part["bom-ref"] for part in (document["metadata"]["component"], *document["components"])]
    assert len(names) == len(set(names))
    assert {entry["ref"] for entry in document["dependencies"]} == set(names)
    datasets = document["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"]
    assert {entry["ref"] for entry in datasets} <= set(names)


def test_equal_builds_give_equal_documents_and_others_do_not() -> None:
    assert json.dumps(bill()) == json.dumps(bill())
    other = bill_of_materials(make_report(), HASHES | {"model/config.json": "ee" * 32})
    assert other["serialNumber"] != bill()["serialNumber"]


def test_a_local_path_is_not_published() -> None:
    document = json.dumps(bill(base_model="/srv/secret/parent"))
    assert "secret" not in document and '"parent"' in document


def test_licenses_have_their_spdx_names_where_they_have_one() -> None:
    assert licenses("apache-2.0") == [{"license": {"id": "Apache-2.0"}}]
    assert licenses(None) == licenses("unknown") == []
