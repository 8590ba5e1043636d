"""From plan to healing in memory on families with experts: methods, kinds, settings, and what they refuse."""

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
from minigpt.errors import PlanError, UnsupportedModel
from minigpt.files import read_json, write_json
from minigpt.healing import Recipe
from minigpt.planning.settings import PlanSettings
from minigpt.transformer import stats
from minigpt.transformer.arch import arch_of, parameters_of, shape_of
from minigpt.types import PrunePlan
from tests.support.archsuite import EXPERTS, logits, model_of, random_batch
from tests.support.tiny import tiny_tokenizer
from tests.support.worlds import documents, words

SETTINGS = PlanSettings(tokens=512, probe_tokens=128, sensitivity="measure")
RECIPE = Recipe(tokens_per_step=256, window=64, learning_rate=1e-3, warmup=1, evaluate_every=2, router="frozen")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    draw = Random(0)
    return documents(draw, words(draw, 300), 8)


def half(model: Any) -> int:
    """Parameters with two of four experts in each layer, and everything else as it is."""
    return parameters_of(model, replace(shape_of(model), experts=2))


@pytest.mark.parametrize("family", EXPERTS)
def test_a_family_is_planned_pruned_saved_and_healed(family: str, texts: list[str], tmp_path: Path) -> None:
    """Contextual takes experts, heads, layers and tokens; stock classes load the result with the same logits."""
    model, tokenizer = model_of(family), tiny_tokenizer()
    teacher, size = deepcopy(model), round(0.6 * parameters_of(model))
    plan = minigpt.plan(model, tokenizer, texts, params=size, settings=replace(SETTINGS, experts=2))
    assert all(len(kept) == 2 for kept in plan.experts) and plan.removed_parameters["experts"] > 0
    assert sum(plan.removed_parameters.values()) == plan.parameters_before - plan.parameters_after
    write_json(tmp_path / "plan.json", plan)
    assert read_json(tmp_path / "plan.json", PrunePlan) == plan
    pruned, short = minigpt.prune(model, tokenizer, plan, repair=texts[:4])
    assert sum(parameter.numel() for parameter in pruned.parameters()) == plan.parameters_after
    pruned.save_pretrained(tmp_path)
    attention = pruned.config._attn_implementation
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=attention).eval()
    ids = random_batch(vocab=len(short), pad=0).input_ids
    torch.testing.assert_close(logits(loaded, ids), logits(pruned, ids), rtol=1e-5, atol=1e-5)
    layer = f"{arch_of(pruned).layers}.0.{arch_of(pruned).experts.router}.weight"  # type: ignore[union-attr]
    before = pruned.get_parameter(layer).detach().clone()
    training = minigpt.heal(pruned, short, texts[:6], dev=texts[6:], steps=2, recipe=RECIPE, teacher=teacher, plan=plan)
    losses = [loss for _, loss in training.dev_losses]
    assert training.steps == 2 and losses[-1] != losses[0]
    assert torch.equal(pruned.get_parameter(layer), before), "the recipe freezes the routers"


@pytest.mark.parametrize(
    ("method", "field"),
    [("reap", "expert_gated"), ("expert-frequency", "expert_share"), ("contextual", "expert_loss")],
)
def test_methods_keep_the_experts_that_they_score_highest(method: str, field: str, texts: list[str]) -> None:
    """With experts alone, the plan holds the two best of each layer by the method's own statistic."""
    model, tokenizer = model_of("mixtral"), tiny_tokenizer()
    plan = minigpt.plan(
        model, tokenizer, texts, params=half(model), method=method, kinds=["experts"], settings=SETTINGS
    )
    assert plan.parameters_after == half(model) and plan.tokens is None and plan.layers == (0, 1, 2, 3)
    assert {kind: removed for kind, removed in plan.removed_parameters.items() if removed} == {
        "experts": plan.parameters_before - plan.parameters_after
    }
    from minigpt.api.memory import _batches, as_documents

    measured = stats.collect(model, _batches(tokenizer, as_documents(texts), 512))
    for kept, scores in zip(plan.experts, getattr(measured, field), strict=True):
        assert set(kept) == set(scores.topk(2).indices.tolist())


def test_random_takes_experts_by_the_seed(texts: list[str]) -> None:
    model, tokenizer = model_of("mixtral"), tiny_tokenizer()
    options: dict[str, Any] = {"params": half(model), "method": "random", "kinds": ["experts"], "settings": SETTINGS}
    plans = [minigpt.plan(model, tokenizer, texts, seed=seed, **options).experts for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]


def test_methods_without_experts_and_dense_families_say_so(texts: list[str]) -> None:
    """Each refusal is one sentence that names the way out."""
    mixtral, llama, tokenizer = model_of("mixtral"), model_of("llama"), tiny_tokenizer()

    def plan(model: Any, **options: Any) -> Any:
        return minigpt.plan(model, tokenizer, texts, **({"size": 0.7, "settings": SETTINGS} | options))

    with pytest.raises(PlanError, match=r"reap removes experts, and llama models have none"):
        plan(llama, method="reap")
    with pytest.raises(PlanError, match="allows none of these in llama"):
        plan(llama, kinds=["experts"])
    with pytest.raises(PlanError, match="allows none of these in mixtral"):
        plan(mixtral, kinds=["activation"])
    for method in ("flap", "llm-pruner", "mini-gpt"):
        with pytest.raises(UnsupportedModel, match="layers of mixtral have experts"):
            plan(mixtral, method=method)
    with pytest.raises(PlanError, match="a mixtral has no ffn to remove"):
        plan(mixtral, settings=replace(SETTINGS, intermediate_size=32))
    with pytest.raises(PlanError, match="experts=1 cannot be cut"):
        plan(mixtral, settings=replace(SETTINGS, experts=1))


@pytest.mark.parametrize("method", ["shortgpt", "deeper-layers", "greedy-blocks", "laco", "magnitude", "wanda"])
def test_layers_and_heads_go_as_in_dense_families(method: str, texts: list[str]) -> None:
    """Methods that know nothing of experts cut layers, or KV groups, and leave experts alone."""
    model, tokenizer = model_of("gpt_oss"), tiny_tokenizer()
    changes = {"kv_groups": 1} if method in {"magnitude", "wanda"} else {"layers": 3}
    size = parameters_of(model, replace(shape_of(model), **changes))
    plan = minigpt.plan(model, tokenizer, texts, params=size, method=method, settings=SETTINGS)
    pruned, _ = minigpt.prune(model, tokenizer, plan)
    assert shape_of(pruned) == replace(shape_of(model), **changes) and shape_of(pruned).experts == 4
    assert bool(torch.isfinite(logits(pruned, random_batch().input_ids)).all())
