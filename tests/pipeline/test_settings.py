"""The large presets as they are, all their stages together, with small numbers in place of large ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minigpt.methods import method_named
from minigpt.methods.cut import repair_of
from minigpt.pipeline import sampling
from minigpt.pipeline.settings import PRESETS, settings_for
from tests.support.building import build
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")

SMALL = {
    "corpus.relevance": "false",
    "evaluation.sample_tokens": "0",
    "evaluation.questions": "4",
    "plan.tokens": "512",
    "plan.probe_tokens": "256",
    "plan.sensitivity": "measure",
    "repair.tokens": "512",
    "text.sampled": "6",
    "evaluation.chat_tokens": "3",
    "tune.steps": "2",
    "tune.tokens_per_step": "256",
    "tune.window": "64",
    "heal.steps": "3",
    "heal.tokens_per_step": "512",
    "heal.window": "64",
    "heal.warmup": "1",
}


@pytest.mark.parametrize("preset", ["standard", "thorough"])
def test_a_large_preset_runs_from_end_to_end(preset: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tuned parent read at least what healing read, the rate grows where it should, the size is as asked for."""
    written: list[int] = []
    real = sampling.write_passages

    def counted(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        written.append(len(found))
        return found

    monkeypatch.setattr(sampling, "LENGTH", 40)
    monkeypatch.setattr(sampling, "write_passages", counted)
    options = world.options(f"preset-{preset}", overrides=None, preset=preset, target_size=0.8)
    report = build(replace(options, overrides=SMALL))
    healed, tuned = report.stage("healed"), report.stage("parent_tuned")
    assert healed is not None and tuned is not None and healed.training is not None and tuned.training is not None
    assert tuned.training.tokens >= healed.training.tokens > 0
    rate = PRESETS[preset].heal.learning_rate
    grown = PRESETS[preset].heal.growth > 1
    # Three steps may gain nothing on a tiny model; healing then starts over at lower rates and names the first one.
    _, _, first = healed.training.recipe.partition("started over from ")
    first_rate = float(first.partition(",")[0]) if first else healed.training.learning_rate
    assert (first_rate > rate) is grown
    assert any(note.startswith("Chat: ") and "of 4 answers" in note for note in report.notes)
    assert len(written) == 2 and 0 < sum(written) <= 6, "one part goes on from the domain, one from general text"
    assert report.preset == preset and 0.75 < healed.parameters / report.stages[0].parameters <= 0.81


@pytest.mark.parametrize(
    ("changes", "method", "repaired"),
    [
        ({}, "contextual", True),
        ({}, "wanda", False),
        ({"repair.ridge": "0.01"}, "wanda", True),
        ({"repair.ridge": "0.01", "repair.when": "auto"}, "wanda", False),
        ({"repair.when": "never"}, "contextual", False),
        ({"repair.tokens": "0"}, "contextual", False),
        ({"repair.when": "always"}, "flap", False),
    ],
)
def test_the_repair_runs_where_the_method_or_the_user_wants_it(
    changes: dict[str, str], method: str, repaired: bool
) -> None:
    """A method that cuts by means of its own has no place for it."""
    assert (repair_of(method_named(method), settings_for("quick", changes).repair) is not None) is repaired


def test_an_older_name_of_a_setting_is_understood() -> None:
    assert settings_for("quick", {"control": "true"}) == settings_for("quick", {"tuned_parent": "true"})


def test_only_settings_that_differ_from_the_preset_are_reported() -> None:
    from minigpt.pipeline.finish import changed_settings
    from minigpt.pipeline.settings import PRESETS

    quick = PRESETS["quick"]
    assert changed_settings(quick, quick) == {}
    overrides = {"heal.steps": "24", "heal.window": str(quick.heal.window), "tuned_parent": "true"}
    changed = changed_settings(quick, settings_for("quick", overrides, keep_general=1.05))
    assert changed == {"heal.steps": "24", "tuned_parent": "true", "keep_general": "1.05"}
    assert settings_for("quick", changed) == settings_for("quick", overrides, keep_general=1.05)
