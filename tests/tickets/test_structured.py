"""Structured tickets: masks of units, the ranking by rounds, and a kill in between."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.errors import UnsupportedModel
from minigpt.methods import method_named
from minigpt.methods.material import gather
from minigpt.methods.ranking import rank
from minigpt.methods.scores import Scores
from minigpt.pruning.apply import apply_plan
from minigpt.tickets.language import Lesson, take
from minigpt.tickets.masks import apply_masks
from minigpt.tickets.settings import LotterySettings
from minigpt.tickets.structured import (
    Units,
    all_units,
    fewer_units,
    ranking,
    structured_rounds,
    unit_masks,
    units_of,
)
from minigpt.transformer.arch import shape_of
from tests.support.archsuite import DENSE, EXPERTS, STATES, model_of, random_batch, some_plan
from tests.support.healing import VOCABULARY, Killed, Killer, patterned, recipe
from tests.support.tiny import tiny_model


@pytest.mark.parametrize("family", DENSE)
def test_a_masked_model_computes_the_same_as_the_cut_one(family: str) -> None:
    """Masks say what cutting does: the same logits, although nothing gets smaller; biases and fused matrices count."""
    model = model_of(family).eval()
    plan = some_plan(model)
    cut = apply_plan(deepcopy(model), plan)
    units = all_units(model)
    for flags in (units.ffn, units.kv_groups, units.layers):
        flags.fill_(False)
    for place, layer in enumerate(plan.layers):
        units.layers[layer] = True
        units.ffn[layer, list(plan.ffn[place])] = True
        units.kv_groups[layer, list(plan.kv_groups[place])] = True
    masks = unit_masks(model, units)
    apply_masks(model, masks)
    ids = torch.arange(3, 40)[None]
    assert torch.allclose(model(ids).logits, cut(ids).logits, atol=1e-4)
    back = units_of(model, masks)
    assert torch.equal(back.layers, units.layers)
    for name in ("ffn", "kv_groups"):
        assert torch.equal(getattr(back, name), getattr(units, name) & units.layers[:, None])


@pytest.mark.parametrize("family", [*EXPERTS, *STATES])
def test_families_without_neurons_of_their_own_in_each_layer_are_refused(family: str) -> None:
    with pytest.raises(UnsupportedModel, match="A ticket of whole units"):
        all_units(tiny_model(family))


def test_the_weakest_units_go_and_the_ends_stay() -> None:
    flags = Units(
        ffn=torch.ones(4, 5, dtype=torch.bool),
        kv_groups=torch.ones(4, 2, dtype=torch.bool),
        layers=torch.ones(4, dtype=torch.bool),
    )
    scores = Scores(
        ffn=torch.arange(20.0).view(4, 5) % 5, kv_groups=torch.tensor([[1.0, 2.0]] * 4), layers=torch.arange(4.0)
    )
    fewer = fewer_units(flags, scores, 0.6, 0.75)
    assert fewer.ffn.tolist() == [[False, False, True, True, True]] * 4
    assert fewer.kv_groups.tolist() == [[False, True]] * 4
    assert fewer.layers.tolist() == [True, False, True, True]
    other = replace(scores, ffn=-scores.ffn)
    assert fewer_units(fewer, other, 0.4, 0.75).ffn.tolist() == [[False, False, True, True, False]] * 4


def test_units_rank_by_their_round_and_then_by_their_score() -> None:
    def units(*alive: bool) -> Units:
        return Units(ffn=torch.tensor([alive]), kv_groups=torch.tensor([[True]]), layers=torch.tensor([True]))

    def scores(*values: float) -> Scores:
        return Scores(ffn=torch.tensor([values]), kv_groups=torch.tensor([[1.0]]), layers=torch.tensor([1.0]))

    result = ranking([
        (units(True, True, True, True), scores(4.0, 1.0, 2.0, 3.0)),
        (units(True, False, False, True), scores(1.0, 9.0, 9.0, 2.0)),
    ])  # fmt: skip
    assert result.ffn[0].argsort(descending=True).tolist() == [3, 0, 2, 1]


def find(folder: Path, killed_at: int | None = None, family: str = "llama", **changes: Any) -> Scores:
    model = tiny_model(family, vocab_size=VOCABULARY)
    lesson = Lesson(model=model, text=patterned(80), dev=patterned(12, seed=1), recipe=recipe(steps=6))
    batches = [random_batch(vocab=VOCABULARY)]
    settings = LotterySettings(**({"rounds": 2, "share": 0.25} | changes))
    reporter = {} if killed_at is None else {"reporter": Killer(killed_at)}

    def ranked(trained: Any) -> Scores:
        scores = rank(method_named(settings.criterion), gather(trained, batches))
        assert scores is not None
        return scores

    return structured_rounds(folder, take(model), lesson, ranked, settings, key="k", **reporter)[1]


@pytest.mark.parametrize("criterion", ["magnitude", "contextual"])
def test_rounds_rank_units_and_a_killed_search_goes_on(tmp_path: Path, criterion: str) -> None:
    expected = find(tmp_path / "whole", criterion=criterion, layer_share=0.25)
    shape = shape_of(tiny_model(vocab_size=VOCABULARY))
    assert expected.ffn.shape == (shape.layers, shape.intermediate_size)
    # 64 neurons: 16 leave in the first round, 12 in the second, so that 36 are in the last.
    assert [int((expected.ffn[0].floor() == place).sum()) for place in (1, 2, 3)] == [16, 12, 36]
    assert sorted(expected.layers.floor().tolist()) == [1, 2, 3, 3]
    with pytest.raises(Killed):
        find(tmp_path / "cut", 4, criterion=criterion, layer_share=0.25)
    again = find(tmp_path / "cut", criterion=criterion, layer_share=0.25)
    for name in ("ffn", "kv_groups", "layers"):
        assert torch.equal(getattr(again, name), getattr(expected, name))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi3", "glm4", "starcoder2"])
def test_rounds_rank_the_units_of_families_that_store_matrices_otherwise(tmp_path: Path, family: str) -> None:
    found = find(tmp_path, family=family)
    assert [int((found.ffn[0].floor() == place).sum()) for place in (1, 2, 3)] == [16, 12, 36]
