"""Plan, prune and heal in memory: what a library user gets, without corpus, folder or catalog."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

import minigpt
from minigpt.errors import ConfigError, CorpusError, PlanError, UnknownName
from minigpt.healing import Recipe
from minigpt.methods import Material, Method, Scores
from minigpt.planning.settings import PlanSettings
from minigpt.pruning.apply import mask_plan
from tests.support.worlds import World, documents, words

SMALL = PlanSettings(tokens=1024, probe_tokens=128, sensitivity="measure")
RECIPE = Recipe(tokens_per_step=256, window=64, learning_rate=1e-3, warmup=1, evaluate_every=2)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    draw = Random(0)
    return documents(draw, words(draw, 900), 24)


@pytest.fixture
def parent(world: World, home: Path) -> tuple[Any, Any]:
    return minigpt.load(world.base, device="cpu")


def test_a_model_is_planned_pruned_healed_and_measured_in_memory(
    parent: tuple[Any, Any], texts: list[str], tmp_path: Path
) -> None:
    model, tokenizer = parent
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plan = minigpt.plan(model, tokenizer, texts, size=0.75, settings=SMALL)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "planning reads only"
    teacher = deepcopy(model)
    pruned, short = minigpt.prune(model, tokenizer, plan, repair=texts)
    size = sum(parameter.numel() for parameter in pruned.parameters())
    assert pruned is model and size == plan.parameters_after <= 0.75 * plan.parameters_before
    assert len(short) == len(plan.tokens or ()) < len(tokenizer)
    stage = minigpt.evaluate(pruned, texts[16:], tokenizer=short)
    assert stage.seconds > 0 and stage.parameters == size
    metric = stage.metrics[0]
    assert metric.metric == "bits_per_byte" and metric.low < metric.value < metric.high
    best = minigpt.evaluate(pruned, texts[16:], tokenizer=short, dev=texts[16:])
    assert stage.opening == "<|im_start|>"
    assert best.metrics[0].value <= metric.value
    assert (best.opening == stage.opening) == (best.metrics[0].value == metric.value)
    training = minigpt.heal(
        pruned, short, texts[:16], dev=texts[16:], steps=4, recipe=RECIPE, teacher=teacher, plan=plan
    )
    assert training.steps == 4 and training.dev_losses[-1][1] < training.dev_losses[0][1]
    pruned.save_pretrained(tmp_path)
    short.save_pretrained(tmp_path)
    again, _ = minigpt.load(tmp_path, device="cpu")
    ids = torch.tensor([short.encode(texts[0])[:32]])
    torch.testing.assert_close(again(ids).logits, pruned(ids).logits)


def test_cutting_computes_what_masking_computes(parent: tuple[Any, Any], texts: list[str]) -> None:
    model, tokenizer = parent
    plan = minigpt.plan(model, tokenizer, texts, params=151_840, kinds=("linear",), settings=SMALL)
    ids = torch.tensor([tokenizer.encode(texts[0])[:32]])
    with torch.inference_mode(), mask_plan(model, plan):
        masked = model(ids, use_cache=False).logits
    pruned, same = minigpt.prune(model, tokenizer, plan)
    assert same is tokenizer
    with torch.inference_mode():
        torch.testing.assert_close(pruned(ids).logits, masked, rtol=1e-4, atol=1e-4)


def smallest_first(material: Material) -> Scores:
    """A toy formula: later units matter more."""
    layers, width = material.norms.down.shape
    return Scores(
        ffn=torch.arange(width).float().expand(layers, width),
        kv_groups=torch.arange(material.norms.groups).float().expand(layers, material.norms.groups),
        layers=torch.arange(layers).float(),
    )


ROW = Method(name="smallest-first", rank=smallest_first, prunes=("ffn", "kv_groups"), paper="a toy")
NO_ROW = "nothing"


@pytest.mark.parametrize("method", [ROW, f"{__name__}:ROW"])
def test_a_method_of_ones_own(parent: tuple[Any, Any], texts: list[str], method: Method | str) -> None:
    model, tokenizer = parent
    plan = minigpt.plan(model, tokenizer, texts, size=0.85, method=method, settings=SMALL)
    assert all(kept[-1] == 255 for kept in plan.ffn) and plan.tokens is None
    pruned, _ = minigpt.prune(model, tokenizer, plan, method=method if isinstance(method, Method) else None)
    assert sum(parameter.numel() for parameter in pruned.parameters()) == plan.parameters_after


def test_flap_cuts_by_statistics_of_the_repair_text(parent: tuple[Any, Any], texts: list[str]) -> None:
    model, tokenizer = parent
    plan = minigpt.plan(model, tokenizer, texts, size=0.85, method="flap", settings=SMALL)
    with pytest.raises(CorpusError, match="give them as `repair`"):
        minigpt.prune(deepcopy(model), tokenizer, plan)
    pruned, _ = minigpt.prune(model, tokenizer, plan, repair=texts)
    assert pruned.config.mlp_bias and bool(pruned.model.layers[0].mlp.down_proj.bias.any())


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"method": "contextal"}, UnknownName, "Did you mean 'contextual'"),
        ({"method": "nowhere.at_all:ROW"}, ConfigError, "cannot be imported"),
        ({"method": f"{__name__}:NO_ROW"}, ConfigError, "names a str"),
        ({"method": "slicegpt"}, PlanError, "no model that plain transformers loads"),
        ({"size": 0.5, "params": 100}, PlanError, "give one of them"),
        ({"size": 2.0}, PlanError, "Ask for less"),
        ({"settings": replace(SMALL, contrast=0.5)}, ConfigError, "compares with general text"),
    ],
)
def test_bad_arguments_get_one_sentence(
    parent: tuple[Any, Any], texts: list[str], changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    model, tokenizer = parent
    with pytest.raises(error, match=said):
        minigpt.plan(model, tokenizer, texts, **{"settings": SMALL, **changes})


def test_no_text_and_a_strange_teacher_are_refused(parent: tuple[Any, Any], texts: list[str]) -> None:
    model, tokenizer = parent
    with pytest.raises(CorpusError, match="There is no text"):
        minigpt.plan(model, tokenizer, ["", " "], settings=SMALL)
    plan = minigpt.plan(model, tokenizer, texts, params=162_080, kinds=("embedding",), settings=SMALL)
    teacher = deepcopy(model)
    pruned, short = minigpt.prune(model, tokenizer, plan)
    with pytest.raises(PlanError, match="different vocabularies"):
        minigpt.heal(pruned, short, texts, dev=texts, steps=1, recipe=RECIPE, teacher=teacher)
    assert minigpt.heal(pruned, short, texts, dev=texts, steps=1, recipe=replace(RECIPE, distill=0.5)).steps == 1
