"""What a build may be asked for: sizes, kinds, widths, plans; and what is refused before any compute."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from minigpt import pipeline
from minigpt.errors import ConfigError, PlanError, UnknownName
from minigpt.healing import Recipe
from tests.support.building import FAST, NO_HEALING, build, folder_of, weights_of
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize(
    ("kinds", "allowed"),
    [
        (("linear",), {"linear"}),
        (("activation",), {"activation"}),
        (("embedding",), {"embedding"}),
        pytest.param(
            ("linear", "activation", "embedding"), {"linear", "activation", "embedding"}, marks=pytest.mark.slow
        ),
    ],
)
def test_only_the_kinds_asked_for_remove_anything(world: World, kinds: tuple[str, ...], allowed: set[str]) -> None:
    """176,416 parameters less 64 neurons of 96 parameters in each of 4 layers; vocabulary: less 256 tokens of 32."""
    target = 176_416 - (256 * 32 if kinds == ("embedding",) else 64 * 96 * 4)
    made = build(world.options("-".join(kinds), kinds=kinds, target_params=target, overrides=FAST))
    removed = {kind for kind, count in made.removed_parameters.items() if count}
    assert removed <= allowed
    assert sum(made.removed_parameters.values()) == pytest.approx(176_416 - target, rel=0.1)
    assert removed == allowed or len(kinds) > 1
    assert made.shape_after.layers == made.shape_before.layers
    if "embedding" not in kinds:
        assert made.shape_after.vocab_size == made.shape_before.vocab_size
    if kinds == ("activation",):
        assert made.shape_after.kv_groups == made.shape_before.kv_groups


@pytest.mark.parametrize(
    ("dtype", "size"), [("bfloat16", 2 * 160_032), pytest.param("float32", 4 * 160_032, marks=pytest.mark.slow)]
)
def test_bytes_asked_for_are_bytes_on_disk(world: World, dtype: str, size: int) -> None:
    """Room for 160,032 parameters, a legal shape here, and 6,000 bytes of header."""
    size += 6000
    options = world.options(f"bytes_{dtype}", target_bytes=size, dtype=dtype, overrides=FAST)
    made = build(options)
    written = (folder_of(options) / "model" / "model.safetensors").stat().st_size
    assert 0.99 * size <= written <= size
    healed = made.stage("healed")
    assert healed is not None
    assert healed.bytes == written


def test_keeping_everything_changes_no_weight_and_no_token(world: World) -> None:
    import torch

    options = world.options("whole", target_size=1.0, dtype="float32", overrides=NO_HEALING)
    made = build(options)
    before, after = weights_of(world.base), weights_of(folder_of(options) / "model")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    read = [
        json.loads((folder / "tokenizer.json").read_text()) for folder in (world.base, folder_of(options) / "model")
    ]
    assert read[0] == read[1]
    assert made.removed_parameters == {"linear": 0, "activation": 0, "embedding": 0, "layers": 0}
    parent, healed = made.stage("parent"), made.stage("healed")
    assert parent is not None
    assert healed is not None
    assert [metric.value for metric in healed.metrics] == [metric.value for metric in parent.metrics]


def test_without_healing_steps_the_pruned_model_is_the_result(world: World) -> None:
    made = build(world.options("unhealed", overrides=NO_HEALING))
    pruned, healed = made.stage("pruned"), made.stage("healed")
    assert pruned is not None
    assert healed is not None
    assert healed.training is not None
    assert (healed.training.tokens, healed.training.steps) == (0, 0)
    assert healed.metrics == pruned.metrics
    assert healed.sample == pruned.sample


def test_a_plan_alone_writes_no_model_and_is_what_the_build_does(world: World, made: Counter[str]) -> None:
    options = world.options("planned", overrides=FAST)
    (plan,) = pipeline.plan_specialists(options)
    assert not (folder_of(options) / "model").exists()
    assert not (folder_of(options) / "report.json").exists()
    assert not [path for path in folder_of(options).rglob("model.safetensors")]
    assert sum(plan.removed_parameters.values()) == plan.parameters_before - plan.parameters_after
    done = build(options)
    assert made["plan"] == made["corpus"] == 1
    assert done.shape_after.intermediate_size == plan.intermediate_size
    assert done.shape_after.layers == plan.layers == 4 - len(plan.removed_layers)


def test_the_same_seed_gives_the_same_plan(world: World) -> None:
    plans = []
    for name in ("first", "second"):
        options = world.options(name, method="random", overrides={**FAST, "plan.sensitivity": "measure"})
        build(options)
        plans.append((folder_of(options) / "plan.json").read_bytes())
    assert plans[0] == plans[1]
    third = world.options("third", method="random", seed=1, overrides=FAST)
    pipeline.plan_specialists(third)
    other = json.loads((folder_of(third) / "work" / "plan" / "plan.json").read_text("utf-8"))
    assert other["ffn"] != json.loads(plans[0])["ffn"]


def test_fixed_widths_are_built(world: World) -> None:
    fixed = {"plan.layers": "3", "plan.intermediate_size": "224", "plan.kv_groups": "1"}
    made = build(world.options("fixed", target_size=0.7, overrides={**FAST, **fixed}))
    after = made.shape_after
    assert (after.layers, after.intermediate_size, after.kv_groups) == (3, 224, 1)


def test_the_rate_of_healing_grows_with_what_was_removed(world: World) -> None:
    """Half of the decoder: times 4; a quarter: times 2, its root; beyond two thirds: as there. Tokens do not count."""
    recipe = Recipe(learning_rate=5e-4, growth=4.0)
    rates = [recipe.after_pruning(removed).learning_rate for removed in (0.0, 0.25, 0.5, 0.9)]
    assert rates == pytest.approx([5e-4, 1e-3, 2e-3, 5e-4 * 4 ** (4 / 3)])
    grown = {"heal.growth": "4", "heal.learning_rate": "1e-4", "plan.vocab_size": "1792"}
    made = build(world.options("grown", target_size=0.75, overrides={**FAST, **grown}))
    healed = made.stage("healed")
    assert healed is not None and healed.training is not None
    folder = folder_of(world.options("grown")) / "model"
    config = json.loads((folder / "config.json").read_text("utf-8"))
    left = sum(weight.numel() for name, weight in weights_of(folder).items() if "embed_tokens" not in name)
    removed = 1 - left / (176_416 - 2048 * 32)
    assert 0.1 < removed < 0.5 and config["vocab_size"] < 2048, "of both something went"
    assert healed.training.learning_rate == pytest.approx(1e-4 * 4 ** (2 * removed))
    assert f"{healed.training.learning_rate:g}" in healed.training.recipe


@pytest.mark.parametrize(
    ("changes", "overrides", "said"),
    [
        ({"target_params": 10}, {}, "smallest possible size here is"),
        ({"target_size": 0.02}, {}, "smallest possible size here is"),
        ({"target_size": 1.5}, {}, "Ask for less"),
        ({"target_bytes": 100}, {}, "Ask for more"),
        ({}, {"plan.layers": "5"}, "layers=5 cannot be cut"),
        ({}, {"plan.vocab_size": "1000"}, "multiple of 64"),
        ({"kinds": ("embedding",)}, {"plan.layers": "3"}, "needs pruning of kind layers"),
    ],
)
def test_what_cannot_be_met_is_refused_before_any_text_is_read(
    world: World, changes: dict[str, Any], overrides: dict[str, str], said: str, made: Counter[str]
) -> None:
    options = world.options("impossible", overrides={**FAST, **overrides}, **changes)
    for job in (pipeline.build_specialists, pipeline.plan_specialists):
        with pytest.raises(PlanError, match=said) as caught:
            job(options)
        assert "\n" not in str(caught.value)
    assert not made, "not even text was read"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"kinds": ("linaer",)}, UnknownName),
        ({"dtype": "int8"}, UnknownName),
        ({"target_size": 0.5, "target_params": 10}, PlanError),
    ],
)
def test_options_are_checked_when_they_are_made(world: World, changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        world.options("unused", **changes)


def test_unknown_presets_devices_and_settings_are_refused(world: World) -> None:
    with pytest.raises(UnknownName, match="quick"):
        build(world.options("unused", preset="quik"))
    with pytest.raises(ConfigError, match="auto"):
        build(world.options("unused", device="cuda:77"))
    with pytest.raises(ConfigError, match=r"heal\.steps"):
        build(world.options("unused", overrides={"heal.stepz": "1"}))
