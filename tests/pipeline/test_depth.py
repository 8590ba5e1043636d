"""Builds with methods that remove whole layers: sizes, merged layers, halves in memory, healing on 4 bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from minigpt import pipeline
from minigpt.files import read_json
from minigpt.pipeline import BuildOptions
from minigpt.results import BuildReport
from minigpt.types import PrunePlan
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")

FAST = {"heal.steps": "0", "evaluation.sample_tokens": "0", "evaluation.general": "false"}
LAYER = 256 * 96 + 2 * 1536 + 64


def options(world: World, folder: str, method: str, **changes: Any) -> BuildOptions:
    overrides = FAST | changes.pop("overrides", {})
    found = world.options(folder, overrides=overrides, method=method, **({"target_size": 0.85} | changes))
    return replace(found, overrides={name: value for name, value in found.overrides.items() if name != "repair.tokens"})


def build(chosen: BuildOptions) -> BuildReport:
    (made,) = pipeline.build_specialists(chosen)
    return made


@pytest.mark.parametrize("method", ["shortgpt", "deeper-layers", "deepest", "greedy-blocks", "laco"])
def test_whole_layers_and_nothing_else(world: World, method: str) -> None:
    """The size is met to within a layer, and only layers go."""
    (plan,) = pipeline.plan_specialists(options(world, f"plan-{method}", method))
    assert len(plan.removed_layers) == 1 and plan.tokens is None
    assert plan.parameters_before - plan.parameters_after == LAYER
    if method == "deepest":
        assert plan.removed_layers == (2,)


def test_merged_layers_reach_the_saved_model(world: World) -> None:
    """What is saved is the folded layer, not the host as it was; a repair that is asked for has no place here."""
    chosen = options(world, "laco", "laco")
    build(replace(chosen, overrides={**chosen.overrides, "repair.tokens": "1024"}))
    plan = read_json(world.root / "laco" / "plan.json", PrunePlan)
    ((host, folded),) = plan.merges
    assert folded not in plan.layers
    child = AutoModelForCausalLM.from_pretrained(world.root / "laco" / "model").state_dict()
    parent = AutoModelForCausalLM.from_pretrained(world.base).state_dict()
    name = "model.layers.{}.mlp.down_proj.weight"
    place = plan.layers.index(host)
    expected = parent[name.format(folded)]
    assert (child[name.format(place)].float() - expected.float()).abs().max() < 0.02 * expected.float().abs().max()


def test_blockpruner_is_evaluated_and_never_saved(world: World) -> None:
    made = build(options(world, "halves", "greedy-blocks", masked=True))
    stage = made.stage("pruned")
    assert stage is not None and stage.parameters <= 0.85 * made.stages[0].parameters
    assert 0 in (*made.kept_per_layer["ffn"], *made.kept_per_layer["kv_groups"])
    assert not (world.root / "halves" / "model").exists() and "each alone" in made.notes[1]


def test_the_papers_recipe_heals(world: World) -> None:
    """QLoRA on the FFN, short and small; attention keeps its 4-bit values."""
    pytest.importorskip("bitsandbytes")
    from minigpt.transformer.nf4 import round_trip

    asked = {"recipe": "deeper-layers", "heal.steps": "4", "heal.rank": "2", "heal.evaluate_every": "2"}
    asked |= {"heal.warmup": "1", "heal.learning_rate": "0.01", "heal.tokens_per_step": "256", "heal.window": "64"}
    chosen = options(world, "qlora", "deepest", overrides=asked)
    made = build(chosen)
    stage = made.stage("healed")
    assert stage is not None and stage.training is not None
    assert stage.training.recipe.startswith("QLoRA (NF4) rank 2 on ffn") and stage.training.steps == 4
    child = AutoModelForCausalLM.from_pretrained(world.root / "qlora" / "model", dtype="float32").state_dict()
    parent = AutoModelForCausalLM.from_pretrained(world.base, dtype="bfloat16").float().state_dict()
    attention, ffn = "model.layers.1.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight"
    assert child[attention].equal(round_trip(parent[attention])[0].bfloat16().float())
    assert stage.training.best_step > 0
    assert not child[ffn].equal(round_trip(parent[ffn])[0].bfloat16().float())
