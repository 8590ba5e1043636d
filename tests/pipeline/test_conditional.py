"""The conditional form of a build: what is written, what stays, and what a killed run keeps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import minigpt
from minigpt import pipeline, report
from minigpt.assets import load_model as load_dense
from minigpt.assets import load_tokenizer
from minigpt.conditional import store
from minigpt.conditional.base import ConditionalFFN
from minigpt.conditional.folder import load_model
from minigpt.conditional.kinds import KINDS
from minigpt.conditional.swap import ffn_layers, ffn_paths
from minigpt.errors import ConfigError, MiniGPTError, PlanError, UnknownName, UnsupportedModel
from minigpt.models.find import find_report
from minigpt.pipeline import BuildOptions, conditional_layers
from minigpt.pipeline import build as build_module
from minigpt.pipeline import conditional as conditional_module
from minigpt.results import BuildReport
from tests.support.building import build, folder_of, no_text, values_given, weights_of
from tests.support.tiny import tiny_model
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")
SMALL = {
    "heal.steps": "2",
    "conditional.tokens": "300",
    "conditional.distill_steps": "3",
    "conditional.distill_tokens": "64",
    "conditional.probe_bytes": "1000",
    "conditional.steps": "3",
    "conditional.max_loss": "3",
}


def faster(modules: list[object], x: torch.Tensor, *, rounds: int = 15) -> tuple[float, ...]:
    """A clock on which every conditional layer is faster, whatever this machine does."""
    return tuple(10.0 if isinstance(module, ConditionalFFN) else 20.0 for module in modules)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional_layers, "times_of", faster)


def options_for(world: World, kind: str, folder: str, **changes: str) -> BuildOptions:
    return world.options(folder, overrides={**SMALL, **changes}, conditional=kind)


@pytest.fixture
def built(world: World) -> tuple[BuildReport, Path]:
    options = options_for(world, "trees", "trees")
    return build(options), folder_of(options)


def test_the_dense_model_stays_and_the_conditional_form_lies_beside_it(built: tuple[BuildReport, Path]) -> None:
    result, folder = built
    dense = load_dense(folder / "model")
    assert not any(isinstance(module, ConditionalFFN) for module in dense.modules())
    model = load_model(folder / "conditional", dtype=torch.float32)
    layers = [module for module in model.modules() if isinstance(module, ConditionalFFN)]
    stage = result.stage("conditional")
    assert stage is not None and stage.conditional is not None
    form = stage.conditional
    assert len(layers) == len(form.layers) - len(form.dense) >= 1
    assert {path.suffix for path in (folder / "conditional").iterdir()} <= {".json", ".safetensors", ".jinja"}
    parameters = sum(value.numel() for value in model.parameters())
    assert stage.parameters == parameters


def test_the_report_compares_with_the_dense_model_by_pairs(built: tuple[BuildReport, Path]) -> None:
    result, folder = built
    dense, stage = result.stage("healed"), result.stage("conditional")
    assert dense is not None and stage is not None and stage.conditional is not None
    values = {(one.task, one.metric): one.value for one in dense.metrics}
    compared = [one for one in stage.metrics if one.paired_difference_vs_dense is not None]
    assert {one.metric for one in compared} >= {"bits_per_byte"}
    for one in compared:
        assert one.paired_difference_vs_dense is not None
        difference = one.value - values[(one.task, one.metric)]
        assert one.paired_difference_vs_dense.value == pytest.approx(difference, abs=1e-9)
    for entry in stage.conditional.layers:
        assert 0 < entry.visited <= entry.neurons
        assert entry.conditional or entry.visited == entry.neurons
    assert 0 < stage.conditional.visited_share <= 1
    assert any(note.startswith("The conditional form (trees)") for note in result.notes)
    assert report.load(folder / "report.json") == result


def test_the_same_command_again_does_nothing_and_another_kind_replaces_the_form(world: World) -> None:
    options = options_for(world, "trees", "again")
    first = build(options)
    weights = weights_of(folder_of(options) / "model")
    assert build(options) == first
    second = build(options_for(world, "topk", "again"))
    assert [stage.stage for stage in second.stages] == [stage.stage for stage in first.stages]
    kinds = {entry.settings.kind for entry in store.read_record(folder_of(options) / "conditional").layers}
    assert kinds == {"relu"}  # the k largest values are a setting of these layers
    assert sum(note.startswith("The conditional form") for note in second.notes) == 1
    after = weights_of(folder_of(options) / "model")
    assert all(torch.equal(value, after[name]) for name, value in weights.items())


def test_a_finished_dense_build_gets_a_conditional_form_later(world: World) -> None:
    dense = build(world.options("later", overrides=SMALL))
    assert dense.stage("conditional") is None
    result = build(options_for(world, "threshold", "later"))
    assert result.stages[:-1] == dense.stages
    assert result.stages[-1].stage == "conditional"
    recipe = (world.root / "later" / "recipe.yaml").read_text("utf-8")
    assert "conditional: threshold" in recipe


def test_a_build_without_its_measurements_is_refused_before_layers_are_converted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(world.options("bare", overrides=SMALL))
    build(world.options("bare", overrides=SMALL))
    shutil.rmtree(folder / "work")

    def fail(*_arguments: object) -> None:
        raise AssertionError("layers were converted")

    monkeypatch.setattr(conditional_module, "convert_layers", fail)
    with pytest.raises(MiniGPTError, match="does not have the measurements of this build any more"):
        build(options_for(world, "threshold", "bare"))


def test_layers_that_are_converted_are_not_converted_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    options, done = options_for(world, "fff", "killed"), []
    convert = conditional_layers._convert

    def killed(work: object, model: object, index: int, inputs: object) -> object:
        if len(done) == 1:
            done.append(-1)
            raise KeyboardInterrupt
        done.append(index)
        return convert(work, model, index, inputs)

    monkeypatch.setattr(conditional_layers, "_convert", killed)
    with pytest.raises(KeyboardInterrupt):
        build(options)
    assert (folder_of(options) / "report.json").exists()  # of the dense specialist
    build(options)
    layers = [index for index in done if index >= 0]
    assert sorted(layers) == sorted(set(layers))
    assert not (folder_of(options) / "work" / "conditional_layers").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_built_and_loaded(world: World, kind: str) -> None:
    options = options_for(world, kind, "kinds")
    build(options)
    model, tokenizer = minigpt.load(folder_of(options) / "conditional", device="cpu")
    ids = torch.tensor([tokenizer.encode("a few words", add_special_tokens=False)])
    with torch.no_grad():
        together = model(ids).logits[0, -1]
        cache = model(ids[:, :-1], use_cache=True).past_key_values
        step = model(ids[:, -1:], past_key_values=cache, use_cache=True).logits[0, -1]
    torch.testing.assert_close(step, together, atol=2e-4, rtol=2e-4)


def test_compare_takes_the_folder(built: tuple[BuildReport, Path]) -> None:
    result, folder = built
    view = find_report(str(folder / "conditional"))
    assert [stage.stage for stage in view.stages] == [
        stage.stage for stage in result.stages if stage.stage not in ("pruned", "healed")
    ]


def test_stock_loading_and_pruning_of_the_folder_are_refused(built: tuple[BuildReport, Path], world: World) -> None:
    _, folder = built
    with pytest.raises(UnsupportedModel, match="conditional layers"):
        load_dense(folder / "conditional")
    with pytest.raises(UnsupportedModel, match="cannot be pruned"):
        pipeline.plan_specialists(world.options("refused", base=str(folder / "conditional")))


def test_a_folder_that_lacks_weights_is_refused(built: tuple[BuildReport, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(built[1], folder)
    (folder / "work" / "sums.json").unlink()  # the folder of a build refuses whatever is not what was written
    path = folder / "conditional" / "backbone.safetensors"
    weights = load_file(path)
    lost = next(name for name in weights if "q_proj" in name)
    save_file({name: value for name, value in weights.items() if name != lost}, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    with pytest.raises(MiniGPTError, match="incomplete"):
        load_model(folder / "conditional")


def test_slower_layers_are_an_error_that_says_what_to_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional_layers, "times_of", lambda modules, x: (1.0, 2.0))
    options = options_for(world, "topk", "slow")
    with pytest.raises(PlanError, match="faster"):
        build(options)
    assert json.loads((folder_of(options) / "report.json").read_text("utf-8"))["stages"][-1]["stage"] == "healed"


def test_unknown_kinds_and_settings_out_of_range_are_refused(world: World) -> None:
    with pytest.raises(UnknownName, match="kind of conditional layer"):
        options_for(world, "tree", "none")
    with pytest.raises(ConfigError, match="visited"):
        build(options_for(world, "trees", "none", **{"conditional.visited": "0"}))


def test_damage_while_the_conditional_form_is_made_is_named_and_not_sealed(world: World) -> None:
    options = options_for(world, "trees", "open")
    dense = build(replace(options, conditional=None))
    weights = folder_of(options) / "model" / "model.safetensors"
    whole = weights.read_bytes()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("minigpt.pipeline.build.add_conditional", interrupted)
        build(options)
    weights.write_bytes(bytes([whole[0]]) + whole[1:-1] + bytes([whole[-1] ^ 1]))
    again = build(replace(options, conditional=None))
    assert list(weights.parent.parent.glob("model.damaged-*")) and weights.read_bytes() == whole
    assert [stage.metrics for stage in again.stages] == [stage.metrics for stage in dense.stages]


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def other_parent(world: World, folder: Path, family: str, **changes: object) -> str:
    tokenizer = load_tokenizer(world.base)
    tiny_model(family, vocab_size=len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", ["gpt2", "opt", "phi", "gpt_neox", "phi3"])
def test_families_that_name_or_store_their_layers_otherwise_are_built_to_the_end(
    world: World, tmp_path: Path, family: str
) -> None:
    base = other_parent(world, tmp_path / "parent", family)
    options = replace(options_for(world, "topk", family), base=base)
    stage = build(options).stage("conditional")
    assert stage is not None and stage.conditional is not None and 0 < stage.conditional.visited_share <= 1
    minigpt.load(folder_of(options) / "conditional", device="cpu")


def test_what_cannot_become_conditional_is_refused_before_text_is_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "read", no_text)
    for family in ("mixtral", "mamba"):
        base = other_parent(world, tmp_path / family, family)
        with pytest.raises(UnsupportedModel, match="Making layers conditional"):
            build(replace(options_for(world, "topk", f"refused-{family}"), base=base))
    with pytest.raises(PlanError, match="no kernel for float16"):
        replace(options_for(world, "topk", "half"), dtype="float16")


def test_the_dense_layer_is_timed_as_a_whole() -> None:
    """OPT has no module for its FFN: a conditional layer stands for both projections and what is between them."""
    model = tiny_model("opt", layers=2)
    layer, x = ffn_layers(model)[0], torch.randn(3, 32)
    with torch.no_grad():
        expected = layer.fc2(layer.activation_fn(layer.fc1(x)))
        torch.testing.assert_close(conditional_layers.dense_modules(layer, ffn_paths(model))(x), expected)


def test_a_bound_on_general_text_holds_in_conditional_healing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = values_given(monkeypatch, conditional_module, "train", "bound")
    build(replace(options_for(world, "topk", "bounded"), keep_general=9.0))
    [bound] = bounds
    assert bound is not None and bound.limit > 0
