"""Licenses of parent and texts in a card's metadata: names that the Hub accepts, and none left out."""

from __future__ import annotations

import re

import pytest
from huggingface_hub import ModelCard

from minigpt.report.card import render_card
from minigpt.report.licensing import HUB_NAMES, license_metadata
from minigpt.types import Attribution
from tests.support.reports import make_report


@pytest.mark.parametrize(
    ("parent", "texts", "expected"),
    [
        ("apache-2.0", [], {"license": "apache-2.0"}),
        ("apache-2.0", ["Apache-2.0", "apache-2.0"], {"license": "apache-2.0"}),
        ("apache-2.0", ["CC BY 4.0 (UniProt)", "MIT"], {"license": ["apache-2.0", "cc-by-4.0", "mit"]}),
        (None, ["CC0-1.0"], {"license": ["unknown", "cc0-1.0"]}),
        ("mit", ["unknown"], {"license": ["mit", "unknown"]}),
        ("gemma", ["CC BY 4.0 (a); GPL-3.0-or-later (b)"], {"license": ["gemma", "cc-by-4.0", "gpl-3.0"]}),
        (
            "apache-2.0",
            ["HPO license (free use, unaltered), https://hpo.jax.org/app/license"],
            {
                "license": "other",
                "license_name": "apache-2.0-and-hpo-license",
                "license_link": "https://hpo.jax.org/app/license",
            },
        ),
        ("mit", ["x y\nz", "ä: 'q'"], {"license": "other", "license_name": "mit-and-x-y-and-z-and-q"}),
    ],
)
def test_parent_and_texts_are_named_as_the_hub_names_them(parent, texts, expected):
    assert license_metadata(parent, texts) == expected


@pytest.mark.parametrize("license", ["MIT", "CC BY-SA 4.0", "unknown", "our own: see #3 (internal)", "- [x]: *", ""])
def test_the_hub_library_reads_any_license_back(license):
    sources = (
        Attribution(name="a", license=license, citation="", documents=1, bytes=2),
        Attribution(name="b", license="AGPL-3.0", citation="", documents=1, bytes=2, measured_only=True),
    )
    data = ModelCard(render_card(make_report(attributions=sources))).data
    names = data.license if isinstance(data.license, list) else [data.license]
    assert set(names) <= HUB_NAMES | {"unknown", "other"} and "agpl-3.0" not in str(names)
    assert "apache-2.0" in names or re.fullmatch(r"apache-2\.0-and-[a-z0-9.-]+", data.license_name)
    assert not getattr(data, "datasets", None)
