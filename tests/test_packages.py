"""Installed packages against what they require and what a file pins; real metadata, written into a folder."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from minigpt.errors import ConfigError
from minigpt.packages import Mismatch, against, other_versions, unmet


def install(site: Path, name: str, version: str, *requires: str) -> None:
    """Metadata as an installer leaves it."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (folder / "METADATA").write_text("\n".join(lines) + "\n\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    return tmp_path / "site"


def test_what_packages_require_of_each_other_is_checked_through_all_of_them(site: Path) -> None:
    install(
        site,
        "aa-root",
        "1.0",
        "aa-low>=2",
        "aa-opt[fast]>=1",
        "aa-none; python_version < '3'",
        "aa-dev; extra == 'dev'",
    )
    install(site, "aa-low", "1.5", "aa-root")
    install(site, "aa-opt", "1.0", "aa-quick>=3; extra == 'fast'", "aa-slow; extra == 'slow'")
    assert unmet("aa-root") == (
        Mismatch(package="aa-low", installed="1.5", wanted=">=2", by="aa-root"),
        Mismatch(package="aa-quick", installed=None, wanted=">=3", by="aa-opt"),
    )
    assert unmet("aa-not-installed") == ()


def test_pins_are_compared_with_what_is_installed(site: Path, tmp_path: Path) -> None:
    install(site, "aa-one", "1.0+cpu")
    install(site, "aa-two", "2.1")
    file = tmp_path / "constraints.txt"
    file.write_text(
        "# tested\naa-one==1.0\nAA_Two==2.0 # old\naa-three==1\naa-two==9; python_version < '3'\n-r other.txt\n"
    )
    assert against(file) == (Mismatch(package="AA_Two", installed="2.1", wanted="==2.0", by="constraints.txt"),)
    file.write_text("aa one = 2\n")
    with pytest.raises(ConfigError, match="is no constraint"):
        against(file)
    with pytest.raises(ConfigError, match="Cannot read"):
        against(tmp_path / "none.txt")


def test_versions_of_a_build_are_compared() -> None:
    here = {"click": metadata.version("click"), "python": "2.7"}
    assert other_versions(here, "law") == ()
    assert [item.package for item in other_versions(here | {"click": "0.1", "aa-gone": "1"}, "law")] == [
        "aa-gone",
        "click",
    ]


def test_the_packages_here_meet_their_requirements() -> None:
    """Those that this suite runs with; a failure here is one of the installation."""
    assert unmet() == ()
