"""From plan to healing in memory on families that are stored in unusual ways, Mini-GPTs' parents among them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import minigpt
from minigpt.healing import Recipe
from minigpt.planning.settings import PlanSettings
from minigpt.transformer.arch import legal_kv_groups, parameters_of, shape_of
from tests.support.archsuite import logits, model_of, random_batch
from tests.support.tiny import SENTENCES, tiny_tokenizer
from tests.support.worlds import documents, words

SETTINGS = PlanSettings(tokens=512, probe_tokens=128, sensitivity="measure")
RECIPE = Recipe(tokens_per_step=256, window=64, learning_rate=1e-3, warmup=1, evaluate_every=2)
FAMILIES = ("phi", "opt", "gpt2", "gpt_neox", "phi3", "olmo2")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    draw = Random(0)
    return documents(draw, words(draw, 300), 8)


def smaller(model: Any, **changes: int) -> int:
    """Parameters of a shape that the family can have, with the fewest heads where widths change."""
    groups = shape_of(model).kv_groups if "layers" in changes else min(legal_kv_groups(model))
    shape = replace(shape_of(model), kv_groups=groups, **changes)
    return parameters_of(model, shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_planned_pruned_saved_and_healed(family: str, texts: list[str], tmp_path: Path) -> None:
    """The pruned model with fewer tokens loads by stock classes with the same logits, and a step of healing runs."""
    model, tokenizer = model_of(family), tiny_tokenizer()
    teacher, size = deepcopy(model), smaller(model, intermediate_size=32)
    plan = minigpt.plan(model, tokenizer, texts, params=size, settings=SETTINGS)
    pruned, short = minigpt.prune(model, tokenizer, plan, repair=texts[:4])
    assert sum(parameter.numel() for parameter in pruned.parameters()) == plan.parameters_after
    pruned.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = random_batch(vocab=len(short), pad=0).input_ids
    torch.testing.assert_close(logits(loaded, ids), logits(pruned, ids), rtol=1e-5, atol=1e-5)
    training = minigpt.heal(pruned, short, texts[:6], dev=texts[6:], steps=2, recipe=RECIPE, teacher=teacher, plan=plan)
    losses = [loss for _, loss in training.dev_losses]
    assert training.steps == 2 and losses[-1] != losses[0]


@pytest.mark.parametrize("family", ["phi", "opt", "gpt_neox"])
@pytest.mark.parametrize("method", ["mini-gpt", "shortgpt", "deeper-layers", "greedy-blocks", "laco"])
def test_the_papers_methods_cut_the_papers_families(family: str, method: str) -> None:
    """Mini-GPTs' rules and the rankings of layers read and cut Phi, OPT and Llama alike."""
    model, tokenizer = model_of(family), tiny_tokenizer()
    size = smaller(model, **({"intermediate_size": 32} if method == "mini-gpt" else {"layers": 3}))
    plan = minigpt.plan(model, tokenizer, list(SENTENCES), params=size, method=method, settings=SETTINGS)
    pruned, _ = minigpt.prune(model, tokenizer, plan)
    assert sum(parameter.numel() for parameter in pruned.parameters()) == parameters_of(pruned) == size
    assert bool(torch.isfinite(logits(pruned, random_batch().input_ids)).all())
