"""Folders of builds: a kill at an awkward moment neither hides damage nor loses what a user wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt import integrity
from minigpt.pipeline.workspace import State, Workspace


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    """A finished build with a model, two records and a card."""
    workspace = Workspace(root=tmp_path / "build")
    for name in ("model/model.safetensors", "model/config.json", "model/README.md", "domain.yaml", "report.json"):
        path = workspace.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} as it was written")
    workspace.work.mkdir()
    workspace.marker.write_text("{}")
    workspace.seal("key")
    return workspace


@pytest.mark.parametrize("survived", [0, 1, 2])
def test_damage_stays_known_until_all_of_it_is_moved_aside(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    (space.model / "model.safetensors").write_text("a flipped bit")
    aside, moves = integrity.set_aside, []

    def killed(path: Path) -> Path:
        if len(moves) == survived:
            raise KeyboardInterrupt
        moves.append(path)
        return aside(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(integrity, "set_aside", killed)
        space.set_damaged_aside("a reason")
        raise KeyboardInterrupt  # after the last move
    assert survived == 2 or space.damage() is not None
    assert space.state() is State.RESUMABLE
    space.set_damaged_aside("a reason")
    assert not space.report.exists() and not space.model.exists() and not (space.work / integrity.SUMS).exists()


def test_a_build_that_is_open_for_its_conditional_form_keeps_the_hashes_of_its_model(space: Workspace) -> None:
    assert space.is_sealed
    space.open_for("report.json", "conditional")
    space.report.write_text("with another stage")
    assert not space.is_sealed and space.damage() is None
    (space.model / "model.safetensors").write_text("a flipped bit")
    assert space.damage() == "model/model.safetensors is not what was written"
