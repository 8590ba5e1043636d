"""The model that is pruned and teaches, and the part of general text in planning and sampling."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minigpt.errors import ConfigError
from minigpt.pipeline import sampling
from minigpt.pipeline.source import source_of
from minigpt.pipeline.text import planning_text, probe_documents
from minigpt.results import BuildReport
from tests.support.building import FAST, build, folder_of, start, weights_of
from tests.support.worlds import CONTROL, World

pytestmark = pytest.mark.usefixtures("home")

TUNED = {**CONTROL, "tune.steps": "2", "tune.learning_rate": "1e-2"}


def test_a_blend_lies_between_parent_and_tuned_parent(world: World) -> None:
    begun = start(world.options("blend", overrides={**TUNED, "blend": "0.25", "text.sampled": "0"}, dtype="float32"))
    tuned = begun.tuned()
    source = source_of(begun.run, begun.parent, tuned)
    assert source.key not in (tuned.model.key, begun.parent.fingerprint)
    blended, ours, parent = (weights_of(path) for path in (source.path, tuned.model.path, begun.parent.path))
    for name, tensor in blended.items():
        torch.testing.assert_close(tensor, 0.75 * ours[name] + 0.25 * parent[name].float(), rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(tensor, ours[name]) for name, tensor in blended.items())


def test_without_a_blend_the_tuned_parent_is_the_source_and_without_that_the_parent(world: World) -> None:
    begun = start(world.options("no-blend", overrides={**TUNED, "text.sampled": "0"}))
    tuned = begun.tuned()
    assert source_of(begun.run, begun.parent, tuned) == tuned.model
    assert source_of(begun.run, begun.parent, None).path == begun.parent.path


def test_a_build_prunes_the_blend_and_says_so(world: World) -> None:
    report: BuildReport = build(
        world.options("blended", overrides={**FAST, **TUNED, "blend": "0.25", "text.sampled": "0"})
    )
    assert any("25 % of the untuned parent" in note for note in report.notes)
    plain = build(world.options("not-blended", overrides={**FAST, **TUNED, "text.sampled": "0"}))
    assert not any("of the untuned parent" in note for note in plain.notes)
    blended, tuned = (weights_of(folder_of(world.options(name)) / "model") for name in ("blended", "not-blended"))
    assert any(not torch.equal(blended[name], tuned[name]) for name in blended.keys() & tuned.keys())


@pytest.mark.parametrize(("name", "value"), [("blend", "1"), ("blend", "-0.1"), ("text.sampled_general", "1.5")])
def test_shares_outside_their_range_are_refused(world: World, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name.partition(".")[2] or name):
        start(world.options("blend-range", overrides={name: value}))


def test_general_text_can_be_half_of_the_planning_text(world: World) -> None:
    plain = start(world.options("plan-domain"))
    mixed = start(world.options("plan-general", overrides={"text.plan_general": "true"}))
    general = mixed.corpora.general
    assert general is not None
    sources = {document.source for document in general.calibration}
    counted = {document.source for document in (*general.calibration, *general.train)}
    assert not sources & {document.source for document in plain.planning.calibration}
    assert sources <= {document.source for document in mixed.planning.calibration}
    assert counted & {document.source for document in mixed.planning.counted}
    assert mixed.planning.key != plain.planning.key
    bounded = start(world.options("plan-bounded", overrides={"keep_general": "1.5"}))
    dev = {document.source for document in general.dev}
    assert dev & {document.source for document in probe_documents(bounded.planning, 10_000)}
    assert not dev & {document.source for document in probe_documents(mixed.planning, 10_000)}
    assert bounded.planning.key != mixed.planning.key
    assert planning_text(mixed.corpora, plain.run.settings) == plain.planning


@pytest.mark.parametrize(("share", "numbers"), [("0", (8, 0)), ("0.25", (6, 2)), ("1", (0, 8))])
def test_a_share_of_the_passages_goes_on_from_general_text(
    world: World, monkeypatch: pytest.MonkeyPatch, share: str, numbers: tuple[int, int]
) -> None:
    monkeypatch.setattr(sampling, "LENGTH", 40)
    counts: list[int] = []

    def noted(_model: Any, prompts: Any, **_: Any) -> list[list[int]]:
        counts.append(len(prompts))
        return []

    monkeypatch.setattr(sampling, "sample", noted)
    settings = {**TUNED, "text.sampled": "8", "text.sampled_general": share}
    start(world.options(f"sampled-share-{share}", overrides=settings)).text()
    assert counts == [number for number in numbers if number]
