"""A plan beside a finished build: no text stays, and another build's records are not written over."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from minigpt import report
from minigpt.costs import Price
from minigpt.errors import ConfigError, MiniGPTError
from minigpt.pipeline import BuildOptions, plan_specialists
from tests.support.building import FAST, build, folder_of
from tests.support.healing import Notes
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def options(world: World) -> BuildOptions:
    """Options of a build that is finished."""
    options = world.options("planned-again", overrides=FAST)
    build(options)
    return options


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_plan_leaves_no_text_beside_a_finished_build(options: BuildOptions) -> None:
    (plan,) = plan_specialists(options)
    assert plan.parameters_after < plan.parameters_before
    assert not [path for path in (folder_of(options) / "work").rglob("*.jsonl") if "corpus" in path.parts]
    assert build(options) == report.load(folder_of(options))


def test_a_plan_that_fails_leaves_no_text_beside_a_finished_build(
    options: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise MiniGPTError("the plan failed")

    monkeypatch.setattr("minigpt.pipeline.build.plan_pruning", fail)
    with pytest.raises(MiniGPTError, match="the plan failed"):
        plan_specialists(options)
    assert not [path for path in (folder_of(options) / "work").rglob("*.jsonl") if "corpus" in path.parts]


def test_a_plan_with_other_options_leaves_a_finished_build_as_it_is(options: BuildOptions) -> None:
    before = files_of(folder_of(options))
    with pytest.raises(MiniGPTError, match="holds a build made with other options"):
        plan_specialists(replace(options, target_size=0.5))
    assert files_of(folder_of(options)) == before


def test_a_plan_does_not_start_over(options: BuildOptions) -> None:
    with pytest.raises(ConfigError, match="--force beside --plan-only would do nothing"):
        plan_specialists(replace(options, force=True))


def test_a_price_given_to_a_finished_build_is_not_lost_in_silence(options: BuildOptions) -> None:
    notes = Notes()
    build(replace(options, price_per_hour=Price(amount=2.5, currency="EUR")), notes)
    folder = folder_of(options)
    assert notes.notes[-1].startswith("Its report does not know this price")
    assert f"minigpt open {folder} --price-per-hour '2.5 EUR'" in notes.notes[-1]


def test_a_parent_that_was_written_again_is_named_as_the_reason(options: BuildOptions, world: World) -> None:
    config = world.base / "config.json"
    times = config.stat()
    os.utime(config, ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000_000))
    try:
        with pytest.raises(MiniGPTError, match="text or a parent that has changed since"):
            build(options)
    finally:
        os.utime(config, ns=(times.st_atime_ns, times.st_mtime_ns))
