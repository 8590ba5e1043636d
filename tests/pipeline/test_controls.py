"""The controls of a build: the distilled twin, repeats of the tuned parent, and what the report says of them."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from minigpt import report
from minigpt.pipeline.control_notes import noise_note, tuned_note, twin_note, worse_note
from minigpt.pipeline.repeats import Repeat
from minigpt.report.card import write_card
from minigpt.results import BuildReport, StageReport
from tests.healing.test_tune import SETTINGS, attempt
from tests.support.building import FAST, build, folder_of, weights_of
from tests.support.fields import with_task
from tests.support.reports import make_report
from tests.support.reports import stage as sample_stage
from tests.support.worlds import CONTROL, World

pytestmark = pytest.mark.usefixtures("home")

CHANGES = {**FAST, **CONTROL, "tune.steps": "2", "heal.steps": "3", "twin": "true", "tune.seeds": "2"}


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    """A build with a twin and a repeat, its catalog elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGPT_HOME", str(tmp_path_factory.mktemp("home")))
        return build(world.options("controls", overrides=CHANGES))


def stage(result: BuildReport, name: str) -> StageReport:
    return next(one for one in result.stages if one.stage == name)


def test_the_twin_has_all_units_and_the_specialist_s_training(made: BuildReport, world: World) -> None:
    assert [one.stage for one in made.stages] == ["parent", "parent_tuned", "parent_distilled", "pruned", "healed"]
    parent, twin, healed = (stage(made, name) for name in ("parent", "parent_distilled", "healed"))
    assert twin.parameters == parent.parameters > healed.parameters
    assert twin.training is not None and healed.training is not None
    assert twin.training.steps == healed.training.steps == 3
    assert twin.training.recipe.split(",")[1] == healed.training.recipe.split(",")[1], "the same loss, from a teacher"
    assert [one.metric for one in twin.metrics] == [one.metric for one in parent.metrics]


def test_everything_is_compared_with_the_twin(made: BuildReport) -> None:
    for name in ("pruned", "healed"):
        bits = next(one for one in stage(made, name).metrics if one.metric == "bits_per_byte")
        twin = next(one for one in stage(made, "parent_distilled").metrics if one.metric == "bits_per_byte")
        assert bits.paired_difference_vs_distilled is not None
        assert bits.paired_difference_vs_distilled.value == pytest.approx(bits.value - twin.value, abs=1e-9)
    assert all(one.paired_difference_vs_distilled is None for one in stage(made, "parent").metrics)
    assert any("price of pruning alone" in note and "paired 95 %" in note for note in made.notes)


def test_tuned_parent_and_twin_are_compared_on_every_kind_of_text() -> None:
    report = with_task(
        with_task(make_report(), "medical/other", 0.80, 0.90, tuned=0.72), "general", 1.0, 1.2, tuned=1.1
    )
    (note,) = tuned_note(report.stages, "medical")
    assert "0.900 on medical/other, 1.100 on general (above 1: it forgot)" in note
    assert not twin_note(report.stages, "medical")
    twin = replace(stage(report, "parent_tuned"), stage="parent_distilled")
    (note,) = twin_note((*report.stages, twin), "medical")
    assert "1.250 times the bits per byte on medical/other, 1.091 times the bits per byte on general" in note
    assert not tuned_note((stage(report, "parent"), stage(report, "healed")), "medical")


def test_the_noise_of_a_run_is_said(made: BuildReport, world: World) -> None:
    (note,) = [note for note in made.notes if "2 seeds" in note]
    assert "do not hold this noise" in note and "Against each of them" in note
    folder = folder_of(world.options("controls")) / "work" / "tuned_seed1"
    assert not list(folder.rglob("*.safetensors")) and (folder / "repeat.json").exists()


def test_the_spread_is_the_smallest_and_the_largest(made: BuildReport) -> None:
    tuned, healed = (
        next(one.value for one in stage(made, name).metrics if one.metric == "bits_per_byte")
        for name in ("parent_tuned", "healed")
    )
    repeats = [
        Repeat(seed=seed, attempt=attempt(SETTINGS.recipe(), loss), bits={"words": bits})
        for seed, loss, bits in ((1, 0.7, tuned / 2), (2, 0.6, tuned * 2))
    ]
    (line,) = noise_note(repeats, 0.65, made.stages, "words")
    assert "3 seeds: dev loss 0.6000 to 0.7000" in line
    assert f"{healed / tuned / 2:.4f} to {2 * healed / tuned:.4f} times" in line
    assert noise_note([], 0.65, made.stages, "words") == []


@pytest.mark.parametrize("width", [60, 100, 160])
def test_a_report_with_five_stages_is_shown_and_read_back(made: BuildReport, world: World, width: int) -> None:
    out = StringIO()
    Console(file=out, width=width).print(report.render(made))
    assert "healed" in out.getvalue()
    folder = folder_of(world.options("controls"))
    assert report.load(folder / "report.json") == made
    write_card(made, folder / "model")
    assert "distilled" in (folder / "model" / "README.md").read_text("utf-8")


def test_the_twin_and_its_weights_are_dropped_at_the_end(made: BuildReport, world: World) -> None:
    folder = folder_of(world.options("controls"))
    assert weights_of(folder / "model")
    assert not [path for path in (folder / "work").rglob("*.safetensors") if path.parent.name == "model"]


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_healed_model_that_is_worse_than_the_pruned_one_is_named(share: float) -> None:
    values = {"bpb": 0.8, "general": 0.9, "glossary": 0.3}
    pruned = sample_stage("pruned", "medical", values, share=share)
    better = sample_stage("healed", "medical", values | {"bpb": 0.75})
    worse = sample_stage("healed", "medical", values | {"bpb": 0.85})
    assert worse_note([pruned, better], "medical") == []
    (note,) = worse_note([pruned, worse], "medical")
    assert "by 0.0500 bits per byte" in note
    assert worse_note([pruned], "medical") == []
