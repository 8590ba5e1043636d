"""Recipes beside a new preset: what a recipe merely lists of its own preset gives way, and real changes stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from minigpt.pipeline.recipe import all_settings, flatten_settings
from minigpt.pipeline.settings import settings_for

T = TypeVar("T")


def rebased(options: T, given: Mapping[str, Any]) -> T:
    """Leave out those settings of a recipe that a preset or a healing recipe given beside it decides anew.

    Recipes that builds leave name every setting. Without this the old preset's values would override the new preset,
    of which nothing but the name would be left.

    Args:
        options: options of the recipe, with fields `preset` and `overrides`.
        given: the user's options, by the names of its fields.
    """
    record: Any = options
    preset = given.get("preset", record.preset)
    recipe = given.get("overrides", {}).get("recipe")
    listed = {name: text for name, text in record.overrides.items() if name == "recipe"}
    if preset == record.preset and recipe in (None, listed.get("recipe", "preset")):
        return options
    own = flatten_settings(all_settings(settings_for(record.preset, listed)))
    kept = {
        name: text
        for name, text in record.overrides.items()
        if name == "recipe" or own.get(name) != text or (preset == record.preset and not name.startswith("heal."))
    }
    if any(name.startswith("repair.") for name in kept) and "repair.when" in record.overrides:
        kept["repair.when"] = record.overrides["repair.when"]  # a change of a repair alone would turn it on
    rest: T = replace(record, overrides=kept)
    return rest
