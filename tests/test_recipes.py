"""Recipe files of every command: what they say where they cannot be used, and what stays of a changed one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from minigpt.errors import ConfigError, MiniGPTError
from minigpt.recipes import RECIPE, beside, leave, read_strictly, with_comments
from tests.support.healing import Notes


@dataclass(frozen=True, kw_only=True)
class Example:
    """Keys of an example."""

    domain: str
    steps: int = 3


def read(path: Path) -> Example:
    return read_strictly(path, Example, "`domain: law`")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    text = with_comments("# Head\n", {"domain": "law", "steps": 5}, {"domain": "A name.", "steps": "Steps."})
    assert text == "# Head\n# A name.\ndomain: law\n# Steps.\nsteps: 5\n"
    leave(tmp_path, {RECIPE: text})
    assert read(tmp_path / RECIPE) == Example(domain="law", steps=5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("domain: law\nstep: 5\n", "unknown key 'step'. Did you mean 'steps'"),
        ("domain: law\nsteps: many\n", "steps"),
        ("steps: 5\n", "domain is missing"),
        ("- law\n", "a recipe is a mapping such as `domain: law`"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / RECIPE).write_text(text)
    with pytest.raises(ConfigError, match=said):
        read(tmp_path / RECIPE)


def test_a_changed_recipe_is_not_read_and_not_lost(tmp_path: Path) -> None:
    """A copy elsewhere is the user's own; the command that left it writes it again, and moves the changed one aside."""
    leave(tmp_path, {RECIPE: "domain: law\n", "law/domain.yaml": "name: law\n"})
    (tmp_path / RECIPE).write_text("domain: lew\n")
    with pytest.raises(MiniGPTError, match="is damaged"):
        read(tmp_path / RECIPE)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / RECIPE).write_bytes((tmp_path / RECIPE).read_bytes())
    assert read(tmp_path / "copy" / RECIPE).domain == "lew"
    notes = Notes()
    leave(tmp_path, {RECIPE: "domain: law\n", "law/domain.yaml": "name: law\n"}, notes)
    assert read(tmp_path / RECIPE).domain == "law" and len(notes.notes) == 1
    (aside,) = tmp_path.glob("recipe.yaml.damaged-*")
    assert aside.read_text() == "domain: lew\n"
    leave(tmp_path, {RECIPE: "domain: medical\n"}, notes)
    assert read(tmp_path / RECIPE).domain == "medical" and len(notes.notes) == 1, "another run, no damage"


def test_a_name_beside_the_recipe_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "law").mkdir()
    assert beside(tmp_path / RECIPE, "law") == str(tmp_path / "law") and beside(tmp_path / RECIPE, "tax") == "tax"
