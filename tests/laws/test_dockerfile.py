"""The Dockerfile, which continuous integration cannot build: its paths, extras and commands exist."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from pathlib import Path

import click

from minigpt.cli import cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")


def instructions(name: str) -> list[str]:
    return [line.removeprefix(name).strip() for line in TEXT.splitlines() if line.startswith(f"{name} ")]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    """`.dockerignore` leaves out everything and takes back what the image needs."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert lines[0] == "*"
    taken = [line[1:] for line in lines if line.startswith("!")]
    sources = [source for line in instructions("COPY") for source in line.split()[:-1]]
    assert sorted(sources) == sorted(taken)
    for source in sources:
        assert (ROOT / source).exists(), source


def test_everything_that_the_package_is_made_of_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    sources = {source for line in instructions("COPY") for source in line.split()[:-1]}
    assert {project["project"]["readme"], *project["project"]["license-files"], "setup.py"} <= sources
    folders = set(re.findall(r'"(minigpt|corpora|domains)"', (ROOT / "setup.py").read_text("utf-8")))
    assert folders <= sources


def test_the_extras_exist_and_constraints_are_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (install,) = [line for line in instructions("RUN") if "pip install" in line]
    extras = re.search(r"\.\[([\w,]+)\]", install)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["project"]["optional-dependencies"])
    assert "-c constraints.txt" in install
    version = instructions("FROM")[0].removeprefix("python:").removesuffix("-slim")
    assert fnmatch.fnmatch(version, "3.1[12]")


def test_the_command_is_that_of_make_demo_and_click_takes_it() -> None:
    (entry,), (arguments,) = (map(json.loads, instructions(name)) for name in ("ENTRYPOINT", "CMD"))
    demo = (ROOT / "Makefile").read_text("utf-8").partition("\ndemo:")[2].splitlines()[1]
    assert demo.strip() == "$(BIN)/" + " ".join([*entry, *arguments])
    command = cli.get_command(click.Context(cli), arguments[0])
    assert command is not None
    command.make_context(arguments[0], arguments[1:])  # fails where an option does not exist


def test_nothing_runs_as_root() -> None:
    user = TEXT.index("\nUSER minigpt")
    assert user < TEXT.index("\nENTRYPOINT")
    assert "useradd" in TEXT[:user]
