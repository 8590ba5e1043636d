"""Tickets that cannot be found are refused by what the parent and the settings say."""

from __future__ import annotations

import pytest

from minigpt.errors import ConfigError, UnsupportedModel
from minigpt.healing import Recipe
from minigpt.tickets.checks import check_groups, check_recipe, check_units
from minigpt.tickets.masks import Pattern
from minigpt.tickets.settings import LotterySettings
from tests.support.tiny import tiny_model


def test_groups_must_divide_the_rows() -> None:
    with pytest.raises(ConfigError, match=r"Rows of 32 weights \(.*\) do not divide into groups of 5"):
        check_groups(tiny_model(layers=2), Pattern("3:5"))
    for pattern in ("2:4", "layer", "global"):
        check_groups(tiny_model(layers=2), Pattern(pattern))


@pytest.mark.parametrize("family", ["gpt2", "gpt_oss"])
def test_groups_along_outputs_are_refused(family: str) -> None:
    with pytest.raises(UnsupportedModel, match=r"stores matrices with inputs first.*Choose --pattern layer"):
        check_groups(tiny_model(family, layers=2), Pattern("2:4"))
    check_groups(tiny_model(family, layers=2), Pattern("layer"))


def test_adapters_cannot_train_a_ticket() -> None:
    with pytest.raises(ConfigError, match=r"heal\.adapter must be full, not lora"):
        check_recipe(Recipe(adapter="lora"))


@pytest.mark.parametrize("criterion", ["shortgpt", "expert-frequency"])
def test_a_criterion_must_rank_neurons(criterion: str) -> None:
    with pytest.raises(ConfigError, match=f"criterion={criterion} ranks no neurons"):
        check_units(tiny_model(layers=2), LotterySettings(criterion=criterion), Recipe())


def test_units_need_a_feed_forward_network_in_each_layer() -> None:
    check_units(tiny_model("gpt2", layers=2), LotterySettings(), Recipe())
    with pytest.raises(UnsupportedModel, match="A ticket of whole units"):
        check_units(tiny_model("mixtral", layers=2), LotterySettings(), Recipe())
    with pytest.raises(ConfigError, match="adapter"):
        check_units(tiny_model(layers=2), LotterySettings(), Recipe(adapter="qlora"))
