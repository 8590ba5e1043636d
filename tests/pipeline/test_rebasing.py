"""A preset beside a recipe replaces what the recipe lists of its own preset, and keeps what its user changed."""

from __future__ import annotations

import pytest

from minigpt.healing.recipe import RECIPES
from minigpt.pipeline import BuildOptions
from minigpt.pipeline.rebasing import rebased
from minigpt.pipeline.recipe import all_settings, flatten_settings, with_changes
from minigpt.pipeline.settings import PRESETS, Settings, settings_for
from minigpt.pipeline.ticket_recipe import TicketOptions


def left_by_a_build(preset: str, **changes: str) -> BuildOptions:
    """Options as from the recipe of a build, which lists every setting."""
    settings = settings_for(preset, {name.replace("__", "."): text for name, text in changes.items()})
    return BuildOptions(domains=("law",), preset=preset, overrides=flatten_settings(all_settings(settings)))


def beside(options: BuildOptions, **given: object) -> Settings:
    changed = with_changes(rebased(options, given), given)
    return settings_for(changed.preset, changed.overrides)


@pytest.mark.parametrize("preset", ["standard", "thorough"])
def test_a_new_preset_takes_the_place_of_the_old_one(preset: str) -> None:
    assert beside(left_by_a_build("quick"), preset=preset) == PRESETS[preset]


def test_changes_of_the_user_stay_beside_a_new_preset() -> None:
    options = left_by_a_build("quick", heal__steps="77", repair__tokens="3000")
    settings = beside(options, preset="standard", overrides={"plan.contrast": "0.25"})
    expected = {"heal.steps": "77", "repair.tokens": "3000", "plan.contrast": "0.25"}
    assert settings == settings_for("standard", expected)


def test_the_same_preset_and_no_preset_change_nothing() -> None:
    options = left_by_a_build("standard", heal__steps="77")
    assert rebased(options, {}) is options and rebased(options, {"preset": "standard"}) is options


def test_a_healing_recipe_replaces_the_healing_that_a_recipe_lists() -> None:
    name = next(iter(RECIPES))
    assert beside(left_by_a_build("quick"), overrides={"recipe": name}) == settings_for("quick", {"recipe": name})
    with_recipe = left_by_a_build("quick", recipe=name)
    assert beside(with_recipe, preset="standard") == settings_for("standard", {"recipe": name})


def test_tickets_have_the_new_preset_too() -> None:
    ticket = TicketOptions(build=left_by_a_build("quick")).with_changes({"preset": "thorough"}).build
    assert settings_for(ticket.preset, ticket.overrides) == PRESETS["thorough"]
