"""Builds with methods that own few axes, and `--paper-form`: what is written, what is counted, what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minigpt import pipeline, report
from minigpt.errors import MiniGPTError, PlanError
from minigpt.methods import cut as cut_module
from minigpt.methods import flap
from minigpt.pipeline import BuildOptions
from minigpt.pipeline.groundwork import lay_groundwork, read
from minigpt.pipeline.paper_form import paper_form_stage
from minigpt.pruning import repair
from minigpt.results import BuildReport, StageReport
from tests.support.building import start
from tests.support.worlds import World, make_world

pytestmark = pytest.mark.usefixtures("home")

FAST = {"heal.steps": "0", "evaluation.sample_tokens": "0", "evaluation.general": "false"}
BEFORE = 176_416
NEURON, GROUP = 96, 1536
# Weights of the parent that are zero from the start: its embedding of the padding token.
ZERO = 32


def build(options: BuildOptions) -> BuildReport:
    (made,) = pipeline.build_specialists(options)
    return made


def options(
    world: World, folder: str, method: str, *, overrides: dict[str, str] | None = None, **changes: Any
) -> BuildOptions:
    """A small build to 90 % that says nothing of repair unless `overrides` does."""
    found = world.options(folder, overrides=FAST, method=method, target_size=0.9, **changes)
    kept = {name: value for name, value in found.overrides.items() if name != "repair.tokens"}
    return replace(found, overrides=kept | (overrides or {}))


def pruned(made: BuildReport) -> StageReport:
    stage = made.stage("pruned")
    assert stage is not None
    return stage


@pytest.mark.parametrize("method", ["wanda", "llm-pruner", "magnitude", "random"])
def test_width_methods_reach_the_size_with_neurons_and_groups_alone(world: World, method: str) -> None:
    (plan,) = pipeline.plan_specialists(options(world, f"plan-{method}", method))
    assert plan.tokens is None and plan.removed_layers == ()
    assert plan.parameters_after == pytest.approx(0.9 * BEFORE, rel=0.01)
    gone = 4 * ((256 - plan.intermediate_size) * NEURON + (2 - plan.kv_groups) * GROUP)
    assert plan.parameters_before - plan.parameters_after == gone > 0


def test_mini_gpt_cuts_the_vocabulary_too_and_never_layers(world: World) -> None:
    chosen = options(world, "mini-gpt", "mini-gpt", overrides={"plan.vocab_size": "1920"})
    (plan,) = pipeline.plan_specialists(chosen)
    assert plan.tokens == 1920 and plan.removed_layers == ()
    assert plan.removed_parameters["embedding"] == 128 * 32


def test_flap_builds_a_model_with_biases_that_counts_them(world: World) -> None:
    made = build(options(world, "flap", "flap", overrides={"heal.steps": "2"}))
    folder = world.root / "flap" / "model"
    config = json.loads((folder / "config.json").read_text())
    assert config["attention_bias"] and config["mlp_bias"]
    shape, stage = made.shape_after, pruned(made)
    assert "The pruned model was not repaired by least squares." in made.notes
    heads = 16 * shape.kv_groups + 2 * 8 * shape.kv_groups
    biases = 4 * (heads + 32 + 2 * shape.intermediate_size + 32)
    gone = 4 * ((256 - shape.intermediate_size) * NEURON + (2 - shape.kv_groups) * GROUP)
    assert stage.parameters == BEFORE - gone + biases == pytest.approx(0.9 * BEFORE, rel=0.01)


@pytest.mark.parametrize("method", ["flap", "mini-gpt"])
def test_a_paper_form_writes_a_report_and_no_model(world: World, method: str) -> None:
    chosen = options(world, f"masked-{method}", method, masked=True)
    made = build(chosen)
    folder = world.root / f"masked-{method}"
    assert report.load(folder / "report.json") == made
    assert [stage.stage for stage in made.stages] == ["parent", "pruned"]
    assert not (folder / "model").exists() and not list(folder.rglob("model*.safetensors"))
    stage = pruned(made)
    assert stage.parameters <= 0.91 * BEFORE and stage.bytes >= 2 * BEFORE
    assert made.shape_after == made.shape_before
    assert "not masked" in made.notes[0] and "as published" in made.notes[1]
    assert build(chosen) == made
    with pytest.raises(MiniGPTError, match="other options"):
        build(replace(chosen, masked=False))


def test_a_paper_form_is_made_again_for_calibration_text_of_other_windows(world: World, made: Counter[str]) -> None:
    for window in ("64", "32", "32"):
        chosen = options(world, "masked-window", "flap", masked=True, overrides={"heal.window": window})
        begun = start(chosen)
        suite = read(begun.run)[1]
        paper_form_stage(begun.run, lay_groundwork(begun.run, begun.corpora, suite, begun.parent, trains=False))
    assert made["measured_pruned"] == 2 and made["measured_parent"] == 1


def test_a_method_without_a_paper_form_evaluates_the_pruned_model(world: World) -> None:
    """`contextual` evaluated in memory gives the numbers of the pruned model that a build saves."""
    asked = {"evaluation.sample_tokens": "3", "repair.tokens": "512"}
    shipped, in_memory = (
        build(options(world, f"contextual-{flag}", "contextual", masked=flag, overrides=asked))
        for flag in (False, True)
    )
    ours, theirs = pruned(in_memory), pruned(shipped)
    assert ours.parameters == theirs.parameters and ours.sample == theirs.sample
    for one, other in zip(ours.metrics, theirs.metrics, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-6)
    assert in_memory.kept_per_layer == shipped.kept_per_layer and in_memory.shape_after == shipped.shape_after


def test_epsilon_is_an_option(world: World) -> None:
    made = build(
        options(
            world,
            "epsilon",
            "mini-gpt",
            masked=True,
            overrides={"plan.epsilon": "1e-9", "plan.epsilon_tokens": "-1"},
        )
    )
    assert pruned(made).parameters == BEFORE - ZERO
    assert "epsilon = 1e-09" in made.notes[1]


def test_contrast_needs_general_text(world: World) -> None:
    with pytest.raises(MiniGPTError, match=r"plan\.contrast compares with general text"):
        build(options(world, "no-general", "contextual", overrides={"plan.contrast": "0.5"}))
    general = {"plan.contrast": "0.5", "evaluation.general": "true"}
    assert pipeline.plan_specialists(options(world, "contrast", "contextual", overrides=general))


def test_a_contrasted_plan_is_made_again_when_the_general_text_changes(tmp_path: Path, made: Counter[str]) -> None:
    world = make_world(tmp_path)
    general = {"plan.contrast": "0.5", "evaluation.general": "true"}
    asked = options(world, "contrast", "contextual", overrides=general)
    pipeline.plan_specialists(asked)
    pipeline.plan_specialists(asked)
    assert made["plan"] == 1
    for path in (tmp_path / "general").iterdir():
        path.write_text(path.read_text().upper())
    pipeline.plan_specialists(asked)
    assert made["plan"] == 2


def test_kinds_that_a_method_does_not_prune_are_refused(world: World) -> None:
    with pytest.raises(PlanError, match="wanda removes ffn, kv_groups, and --kinds embedding allows none"):
        build(options(world, "refused", "wanda", kinds=("embedding",)))
    with pytest.raises(PlanError, match=r"plan.vocab_size=1024: method wanda removes ffn, kv_groups"):
        build(options(world, "refused", "wanda", overrides={"plan.vocab_size": "1024"}))


def test_slicegpt_is_evaluated_and_never_built(world: World) -> None:
    with pytest.raises(PlanError, match="slicegpt makes no model that plain transformers loads; evaluate it with"):
        build(options(world, "sliced", "slicegpt"))
    made = build(options(world, "sliced", "slicegpt", masked=True))
    assert pruned(made).parameters <= 0.9 * BEFORE and "directions of the hidden state" in made.notes[1]


def test_whole_layers_miss_the_size_and_say_so(world: World) -> None:
    made = build(options(world, "layers", "shortgpt"))
    assert made.shape_after.layers == 3 and made.shape_after.vocab_size == made.shape_before.vocab_size
    kept = pruned(made).parameters
    assert abs(kept - 0.9 * BEFORE) < BEFORE - kept
    assert (
        f"The target was 158,774 parameters; the result has {kept:,}, because shortgpt removes in coarse steps."
        in made.notes
    )


@pytest.mark.parametrize(
    ("method", "asked", "repaired"),
    [("contextual", {}, True), ("wanda", {}, False), ("flap", {}, False), ("wanda", {"repair.ridge": "0.01"}, True)],
)
def test_probes_are_cut_as_the_method_cuts(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str, asked: dict[str, str], repaired: bool
) -> None:
    """A repair that will not follow must not make a unit look cheap to the planner, nor must biases that will."""
    ridges, biased = [], []

    def watched(job: Any, seen: list[Any], told: Callable[..., Any]) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            seen.append(told(*arguments, **options))
            return job(*arguments, **options)

        return call

    monkeypatch.setattr(
        cut_module, "prune_with_repair", watched(repair.prune_with_repair, ridges, lambda *_, **o: o["ridge"])
    )
    monkeypatch.setattr(flap, "compensated", watched(flap.compensated, biased, lambda material, plan: plan.ffn))
    name = f"probed-{method}-{len(asked)}"
    overrides = {"plan.sensitivity": "measure", **asked}
    pipeline.plan_specialists(options(world, name, method, overrides=overrides))
    assert bool(ridges) == repaired and bool(biased) == (method == "flap")
    assert set(ridges) <= {0.01 if asked else None}
