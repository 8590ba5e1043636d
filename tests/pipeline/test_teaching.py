"""Builds that heal by stored answers: written once, resident or streamed, and taught by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minigpt import pipeline
from minigpt.files import read_json
from minigpt.pipeline import BuildOptions, teaching
from minigpt.results import Training
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")

FAST = {"heal.steps": "3", "evaluation.sample_tokens": "0", "evaluation.general": "false", "repair.when": "never"}


def options(world: World, folder: str, **settings: str) -> BuildOptions:
    overrides = FAST | {name.replace("__", "."): value for name, value in settings.items()}
    plain = world.options(folder, overrides=overrides, target_size=0.9)
    return replace(plain, overrides={**plain.overrides, **overrides})


def losses(world: World, folder: str) -> list[float]:
    (path,) = (world.root / folder).rglob("healed/training.json")
    return [loss for _, loss in read_json(path, Training).dev_losses]


def test_stored_answers_heal_as_the_resident_teacher_does(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def watch(home: Any, name: str) -> None:
        plain = getattr(home, name)

        def watched(*args: Any, **more: Any) -> Any:
            calls.append(name)
            return plain(*args, **more)

        monkeypatch.setattr(home, name, watched)

    for name in ("_write_resident", "write_streamed_answers"):
        watch(teaching, name)
    kept = {"heal__distill": "1", "heal__bare": "0", "memory__teacher_top": "100000", "memory__streaming": "never"}
    pipeline.build_specialists(options(world, "resident", memory__teacher="resident", **kept))
    assert calls == []
    pipeline.build_specialists(options(world, "stored", memory__teacher="stored", **kept))
    assert calls == ["_write_resident"]
    streamed = kept | {"memory__streaming": "always"}
    pipeline.build_specialists(options(world, "streamed", memory__teacher="stored", **streamed))
    assert calls == ["_write_resident", "write_streamed_answers"]
    expected = losses(world, "resident")
    assert len(expected) > 1
    assert losses(world, "stored") == pytest.approx(expected, rel=2e-3)
    assert losses(world, "streamed") == pytest.approx(expected, rel=2e-3)
