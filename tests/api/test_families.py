"""From plan to healing in memory on families that are stored in unusual ways, Mini-GPTs' parents among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

import minigpt
from minigpt.transformer.arch import legal_kv_groups, parameters_of, shape_of
from tests.support.archsuite import logits, model_of, random_batch
from tests.support.tiny import SENTENCES, tiny_tokenizer
from tests.support.whole_way import SETTINGS, check_the_whole_way
from tests.support.worlds import documents, words

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
    model = model_of(family)
    check_the_whole_way(model, texts, smaller(model, intermediate_size=32), tmp_path)


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
