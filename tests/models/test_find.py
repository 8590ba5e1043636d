"""Names lead to builds: paths first, unless a folder holds nothing of a build; wrong names get the nearest one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from minigpt.domain.config import load_domain
from minigpt.errors import AssetError, UnknownName
from minigpt.models import catalog, find
from minigpt.models.find import domain_of_build
from minigpt.report import save
from tests.support.commands import finished_build
from tests.support.reports import make_report


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build of `medical` in the catalog; the current folder is another one."""
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "runs" / "medical"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    (folder / "model" / "config.json").write_text('{"model_type": "llama"}')
    save(make_report("medical"), folder)
    catalog.add(folder)
    return folder


def test_a_folder_of_texts_does_not_hide_the_build_of_its_domain(build: Path) -> None:
    Path("medical").mkdir()
    Path("medical", "letter.txt").write_text("Some text.")
    assert find.place_of("medical") == build
    assert find.find_report("medical").domain == "medical"
    assert find.domain_of_build("medical") == "medical"
    assert find.find_config("medical").model_type == "llama"


def test_a_build_in_the_current_folder_is_preferred_to_the_catalog(build: Path) -> None:
    Path("medical").mkdir()
    save(make_report("law"), Path("medical"))
    assert find.place_of("medical") == Path("medical")
    assert find.find_report("medical").domain == "law"


def test_a_name_that_is_in_no_catalog_is_answered_with_the_nearest(build: Path) -> None:
    with pytest.raises(UnknownName, match=r"build or catalog entry 'medical-76'\. Did you mean 'medical'"):
        find.find_report("medical-76")


def test_a_config_that_the_hub_does_not_give_is_one_sentence_of_ours(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(AssetError, match=r"The config of nobody/nothing is not in the local cache, .*\.$"):
        find.find_config("nobody/nothing")


def test_a_domain_that_was_not_built_is_answered_with_its_build(build: Path) -> None:
    with pytest.raises(AssetError, match=r"domain finance is in the catalog yet: `minigpt build --domain finance`"):
        find.find_model("finance")


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
