"""Replacement of a domain file and its texts: only one's own definitions, all or nothing, and said in words."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from minigpt.corpus import replacing
from minigpt.corpus.newdomain import NewDomain, new_domain
from minigpt.corpus.sources import read_source
from minigpt.domain.config import load_domain
from minigpt.errors import ConfigError, CorpusError, MiniGPTError
from tests.support.commands import run


def table(folder: Path, word: str) -> Path:
    """A folder whose text has to be converted."""
    folder.mkdir()
    rows = "".join(f"{number},The {word} of row {number} is long enough to be a text.\n" for number in range(3))
    (folder / "rows.csv").write_text(f"id,note\n{rows}")
    return folder


def texts_of(written: NewDomain) -> list[str]:
    domain = load_domain(str(written.path))
    return [item.text for source in domain.corpus for item in read_source(source, root=domain.root)]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_force_replaces_the_definition_and_its_texts_and_says_so(tmp_path: Path) -> None:
    output = tmp_path / "domains"
    new_domain("mine", table(tmp_path / "old", "heart"), output=output)
    written = new_domain("mine", table(tmp_path / "new", "lung"), output=output, force=True)
    assert all("lung" in text for text in texts_of(written)) and written.texts == output / "mine.texts"
    assert written.replaced == (f"Replaced {output / 'mine.yaml'} with {output / 'mine.texts'} (it named mine.texts).")
    assert f"# minigpt build --domain {output / 'mine.yaml'}" in written.path.read_text("utf-8")
    assert sorted(path.name for path in output.iterdir()) == ["mine.texts", "mine.yaml"]


def test_texts_that_the_new_definition_does_not_need_go(tmp_path: Path) -> None:
    output, plain = tmp_path / "domains", tmp_path / "plain"
    new_domain("mine", table(tmp_path / "old", "heart"), output=output)
    plain.mkdir()
    (plain / "a.txt").write_text("Some plain text.")
    assert texts_of(new_domain("mine", plain, output=output, force=True)) == ["Some plain text."]
    assert [path.name for path in output.iterdir()] == ["mine.yaml"]


def test_nothing_is_said_to_be_replaced_where_there_was_nothing(tmp_path: Path) -> None:
    assert not new_domain("mine", table(tmp_path / "old", "heart"), output=tmp_path / "x", force=True).replaced


def test_general_text_is_replaced_with_it(tmp_path: Path) -> None:
    output, general = tmp_path / "domains", table(tmp_path / "news", "news")
    new_domain("mine", table(tmp_path / "old", "heart"), output=output, general=general)
    written = new_domain("mine", table(tmp_path / "new", "lung"), output=output, general=general, force=True)
    assert "mine-general.yaml" in written.replaced and load_domain(load_domain(str(written.path)).general).general_text


def test_a_new_definition_that_cannot_be_read_leaves_the_old_one(tmp_path: Path) -> None:
    output = tmp_path / "domains"
    new_domain("mine", table(tmp_path / "old", "heart"), output=output)
    before = snapshot(output)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError):
        new_domain("mine", tmp_path / "empty", output=output, force=True)
    assert snapshot(output) == before


@pytest.mark.parametrize("step", range(3))
def test_a_step_that_fails_puts_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The three moves are: old texts aside, new texts into place, the new file over the old one."""
    output = tmp_path / "domains"
    new_domain("mine", table(tmp_path / "old", "heart"), output=output)
    before, moves = snapshot(output), list[Any]()
    replace = os.replace

    def failing(source: Any, target: Any) -> None:
        moves.append(target)
        if len(moves) == step + 1:
            raise OSError(28, "No space left on device")
        replace(source, target)

    publish = replacing._publish

    def published(places: Any, stage: Path) -> None:
        monkeypatch.setattr(replacing.os, "replace", failing)
        publish(places, stage)

    monkeypatch.setattr(replacing, "_publish", published)
    with pytest.raises(MiniGPTError, match="No space left"):
        new_domain("mine", table(tmp_path / "new", "lung"), output=output, force=True)
    assert snapshot(output) == before


def test_only_a_definition_of_that_name_is_replaced(tmp_path: Path) -> None:
    folder = table(tmp_path / "new", "lung")
    for name, text in (("other.yaml", "name: other\n"), ("list.yaml", "- a\n"), ("recipe.yaml", "steps: 3\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError):
            new_domain("mine", folder, output=tmp_path / name, force=True)
        assert (tmp_path / name).read_text() == text
    (tmp_path / "apart").mkdir()
    (tmp_path / "apart" / "mine.texts").mkdir()
    (tmp_path / "apart" / "mine.texts" / "a.txt").write_text("Not converted by anybody.")
    with pytest.raises(ConfigError, match="Move it away"):
        new_domain("mine", folder, output=tmp_path / "apart", force=True)
    with pytest.raises(ConfigError, match="packaged domain"):
        new_domain("medical", folder, output=tmp_path / "apart", force=True)


@pytest.mark.usefixtures("home")
def test_the_command_replaces_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "old", "heart")
    command = ("domains", "new", "mine", "--from", "old")
    assert run(*command).exit_code == 0
    refused = run(*command)
    assert refused.exit_code == 1 and "--force" in refused.stderr
    again = run(*command, "--force")
    assert again.exit_code == 0 and "Replaced domains/mine.yaml" in " ".join(again.stdout.split())
    assert json.loads(run(*command, "--force", "--json").stdout)["replaced"].startswith("Replaced domains/mine.yaml")
