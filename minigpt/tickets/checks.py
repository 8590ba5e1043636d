"""Refusals of tickets that cannot be found, before any text is read or anything is trained."""

from __future__ import annotations

from typing import Any

from minigpt.errors import ConfigError, UnsupportedModel
from minigpt.healing.recipe import Recipe
from minigpt.methods import method_named
from minigpt.tickets.masks import Pattern, prunable
from minigpt.tickets.settings import LotterySettings
from minigpt.transformer.arch import arch_of, refuse_experts


def check_recipe(recipe: Recipe) -> None:
    """Refuse a training that cannot keep removed weights at zero.

    Raises:
        ConfigError: the recipe trains adapters.
    """
    if recipe.adapter != "full":
        raise ConfigError(
            f"Rounds of a ticket train the weights themselves: heal.adapter must be full, not {recipe.adapter}."
        )


def check_groups(model: Any, pattern: Pattern) -> None:
    """Refuse an N:M pattern for matrices whose rows are not inputs, or do not divide into groups.

    Args:
        model: the parent; an outline without weights is enough.
        pattern: where kept weights may lie.

    Raises:
        UnsupportedModel: the family stores matrices as [inputs, outputs], so that groups would lie along the outputs,
            which no GPU multiplies.
        ConfigError: the length of a row is not a multiple of the size of a group.
    """
    if pattern.group is None:
        return
    spec, size = arch_of(model), pattern.group[1]
    turned = [fused.path for fused in spec.fused if fused.transposed]
    if turned or (spec.experts is not None and spec.experts.alternating):
        raise UnsupportedModel(
            f"{spec.name} stores matrices with inputs first, so that groups of {pattern.name} would lie along the "
            "outputs. Choose --pattern layer or global."
        )
    known = dict(model.named_parameters())
    uneven = next((name for name in prunable(model) if known[name].shape[-1] % size), None)
    if uneven is not None:
        raise ConfigError(
            f"Rows of {known[uneven].shape[-1]} weights ({uneven}) do not divide into groups of {size}; choose another "
            "pattern."
        )


def check_units(model: Any, settings: LotterySettings, recipe: Recipe) -> None:
    """Refuse rounds that rank whole units where there are none to rank, or where nothing ranks them.

    Args:
        model: the parent; an outline without weights is enough.
        settings: of the rounds.
        recipe: of healing, which trains the rounds.

    Raises:
        UnsupportedModel: the family has experts, or layers with a state.
        ConfigError: the criterion is unknown or ranks no units, or the recipe trains adapters.
    """
    refuse_experts(model, "A ticket of whole units")
    check_recipe(recipe)
    criterion = method_named(settings.criterion)
    if criterion.rank is None or "ffn" not in criterion.prunes:
        raise ConfigError(f"lottery.criterion={settings.criterion} ranks no neurons; choose a method that does.")
