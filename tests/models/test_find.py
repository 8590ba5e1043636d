"""What a reference stands for besides a model: the domain that a build was made for."""

from __future__ import annotations

from pathlib import Path

import yaml

from minigpt.domain.config import load_domain
from minigpt.models import catalog
from minigpt.models.find import domain_of_build
from tests.support.commands import finished_build


def test_a_build_for_a_domain_file_is_measured_on_that_domain(tmp_path: Path) -> None:
    """Nobody knows the domain of a user's file by name: the definition that lies in the build is read."""
    folder = finished_build(tmp_path / "build", domain="gardening")
    assert domain_of_build(str(folder)) == "gardening"
    (tmp_path / "docs").mkdir()
    definition = {"name": "gardening", "corpus": [{"name": "own", "file": str(tmp_path / "docs"), "license": "CC0"}]}
    (folder / "domain.yaml").write_text(yaml.safe_dump(definition))
    reference = domain_of_build(str(folder))
    assert reference is not None and load_domain(reference).name == "gardening"
    catalog.add(folder)
    assert domain_of_build("gardening") == str(folder)
    assert domain_of_build(str(tmp_path)) is None and domain_of_build("no-such-model") is None
