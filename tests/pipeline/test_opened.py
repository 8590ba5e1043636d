"""Builds that stream the parent: the same plan and the same model, to the byte; what cannot be streamed is said."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt import pipeline
from minigpt.errors import ConfigError
from minigpt.methods.norms import weight_norms
from minigpt.pipeline import BuildOptions, opened
from minigpt.progress import Silent
from tests.support.healing import Steps
from tests.support.streamed import saved, streamed, whole
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")

FAST = {"heal.steps": "0", "evaluation.sample_tokens": "0", "evaluation.general": "false", "repair.tokens": "400"}


def options(world: World, folder: str, streaming: str, method: str = "contextual", **more: str) -> BuildOptions:
    """A small build to 90 %, with the parent held in one form."""
    overrides = (
        FAST | {"memory.streaming": streaming} | {name.replace("__", "."): value for name, value in more.items()}
    )
    plain = world.options(folder, overrides=overrides, method=method, target_size=0.9)
    return replace(plain, overrides={**plain.overrides, **overrides})


def files(folder: Path) -> dict[str, bytes]:
    """Bytes of the plan and of the pruned weights that a build leaves."""
    plan = (folder / "plan.json").read_bytes()
    (weights,) = folder.rglob("model/model.safetensors")
    return {"plan": plan, "weights": weights.read_bytes()}


@pytest.mark.parametrize(
    "method",
    ["contextual", "shortgpt", *(pytest.param(name, marks=pytest.mark.slow) for name in ("deeper-layers", "wanda"))],
)
def test_streamed_and_resident_builds_are_the_same_to_the_byte(
    world: World, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {"plan__sensitivity": "measure"} if method == "contextual" else {}
    used: list[bool] = []
    plain = opened.open_source

    def watched(*args: Any) -> Any:
        used.append((result := plain(*args)).parent is not None)
        return result

    for module in ("plan", "cutting"):
        monkeypatch.setattr(f"minigpt.pipeline.{module}.open_source", watched)
    for form in ("always", "never"):
        pipeline.build_specialists(options(world, f"{method}-{form}", form, method, **measured))
    assert used == [True, True, False, False]
    assert files(world.root / f"{method}-always") == files(world.root / f"{method}-never")


def test_text_waits_on_the_disk_where_memory_lacks_the_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda _self, text: notes.append(text))
    pipeline.build_specialists(options(world, "memory", "always"))
    assert not any("on the disk" in note for note in notes)
    monkeypatch.setattr(opened, "free_memory", lambda _device: (10_000, 10**12))
    pipeline.build_specialists(options(world, "disk", "auto"))
    assert any("streamed statistics and pruning, " in note and " of text on the disk, " in note for note in notes)
    assert files(world.root / "disk") == files(world.root / "memory")


def test_what_does_not_fit_is_streamed_and_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "free_memory", lambda _device: (10_000, 10**12))
    notes: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda _self, text: notes.append(text))
    (plan,) = pipeline.plan_specialists(options(world, "auto", "auto"))
    assert plan.parameters_after < plan.parameters_before
    assert any("streamed statistics and pruning" in note and "of 1000 GB" in note for note in notes)


def test_a_full_disk_is_said_before_the_work_starts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(world.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage._replace(free=1000))
    with pytest.raises(ConfigError, match=r"needs \d+\.\d MB in .*, where 0\.0 MB are free\. Free space"):
        pipeline.plan_specialists(options(world, "full", "always", memory__text="disk"))


def test_methods_that_read_the_model_are_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="llm-pruner needs the whole parent in memory and cannot be streamed"):
        pipeline.plan_specialists(options(world, "refused", "always", "llm-pruner"))


def test_a_sweep_for_norms_alone_shows_its_progress(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    parent, steps = streamed(tmp_path), Steps()
    norms = opened.Opened(parent.model, parent).weight_norms(steps)
    assert list(steps.totals) == ["Norms of the weights"]
    expected = weight_norms(whole(tmp_path))
    assert all(torch.equal(getattr(norms, field.name), getattr(expected, field.name)) for field in fields(expected))


def test_nothing_fits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "free_memory", lambda _device: (1000, 2000))
    with pytest.raises(ConfigError, match=r"the device has 0\.0 GB\. Choose a smaller parent"):
        pipeline.plan_specialists(options(world, "tight", "auto"))
