"""Domains that cannot all be built are refused before the first is."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt.domain.config import domain_names
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.pipeline import BuildOptions, build_specialists, plan_specialists
from minigpt.pipeline.domains import checked_domains


def define(folder: Path, name: str, text: str = "texts.jsonl") -> str:
    folder.mkdir(exist_ok=True)
    (folder / "texts.jsonl").write_text('{"text": "Some words of a field."}\n', encoding="utf-8")
    path = folder / f"{name}.yaml"
    path.write_text(
        f"name: {name}\ntitle: Words\ncorpus:\n  - {{name: own, file: {text}, license: MIT}}\nquestions: []\n",
        encoding="utf-8",
    )
    return str(path)


def options(tmp_path: Path, *domains: str) -> BuildOptions:
    return BuildOptions(domains=domains, output_dir=tmp_path / "runs")


def test_two_domains_of_one_name_are_refused(tmp_path: Path) -> None:
    names = define(tmp_path / "a", "words"), define(tmp_path / "b", "words")
    for job in (build_specialists, plan_specialists):
        with pytest.raises(ConfigError, match="both define a domain called words"):
            job(options(tmp_path, *names))
    assert not (tmp_path / "runs").exists()


def test_a_text_that_is_not_there_stops_before_the_first_domain(tmp_path: Path) -> None:
    names = define(tmp_path / "a", "first"), define(tmp_path / "b", "second", "nowhere")
    with pytest.raises(ConfigError, match=r"second cannot be built here: own: no such file or folder: .*nowhere"):
        build_specialists(options(tmp_path, *names))
    assert not (tmp_path / "runs").exists()


def test_a_domain_that_is_named_twice_is_built_once(tmp_path: Path) -> None:
    name = define(tmp_path / "a", "words")
    assert checked_domains(options(tmp_path, name, name)) == (name,)
    assert checked_domains(options(tmp_path, "all")) == domain_names()


def test_a_definition_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MiniGPTError):
        checked_domains(options(tmp_path, "no-such-field"))
