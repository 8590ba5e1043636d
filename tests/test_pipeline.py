"""Whole builds of a small world: what they leave behind, how they resume, what they refuse, and what they keep."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from minigpt import catalog, pipeline, report
from minigpt.config import load_domain
from minigpt.errors import ConfigError, MiniGPTError, PlanError, UnknownName
from minigpt.pipeline import BuildOptions
from minigpt.pipeline.workspace import Workspace
from minigpt.progress import SILENT, Reporter, Silent
from minigpt.types import BuildReport
from tests.worlds import CONTROL, World, make_world

T = TypeVar("T")
NO_HEALING = {"heal.steps": "0"}
FAST = {**NO_HEALING, "repair.tokens": "0", "evaluation.sample_tokens": "0", "evaluation.general": "false"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildOptions, BuildReport]:
    """A finished build with the control, its catalog elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGPT_HOME", str(tmp_path_factory.mktemp("home")))
        options = world.options("finished", overrides=CONTROL)
        return options, build(options)


def build(options: BuildOptions, reporter: Reporter = SILENT) -> BuildReport:
    (made,) = pipeline.build(options, reporter)
    return made


def folder_of(options: BuildOptions) -> Path:
    assert options.output_dir is not None
    return options.output_dir


def weights_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each stage was made to the end."""
    counted: Counter[str] = Counter()
    original = Workspace.stage

    def stage(self: Workspace, name: str, key: str, make: Callable[[Path], None]) -> Any:
        def counting(folder: Path) -> None:
            make(folder)
            counted[name] += 1

        return original(self, name, key, counting)

    monkeypatch.setattr(Workspace, "stage", stage)
    return counted


def test_a_build_leaves_what_the_contract_says(finished: tuple[BuildOptions, BuildReport]) -> None:
    options, made = finished
    folder = folder_of(options)
    names = {path.name for path in folder.iterdir()}
    assert {"model", "report.json", "plan.json", "domain.yaml"} <= names
    files = {path.name for path in (folder / "model").iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    } <= files
    assert report.load(folder / "report.json") == made
    assert [stage.stage for stage in made.stages] == ["parent", "parent_tuned", "pruned", "healed"]
    raw = json.loads((folder / "report.json").read_text("utf-8"))
    assert {"domain", "base_model", "method", "seed", "versions", "device", "schema_version", "seconds"} <= raw.keys()
    assert raw["schema_version"] == 1
    assert made.base_precision == "float32"
    assert made.domain == "words"


def test_every_stage_is_measured_on_every_task_once(finished: tuple[BuildOptions, BuildReport]) -> None:
    _, made = finished
    for stage in made.stages:
        found = Counter((metric.task, metric.metric) for metric in stage.metrics)
        assert set(found.values()) == {1}
        assert {("words", "bits_per_byte"), ("general", "bits_per_byte"), ("words/next", "accuracy")} <= found.keys()
        for metric in stage.metrics:
            assert metric.low <= metric.value <= metric.high
            other_vocabulary = metric.metric == "token_perplexity" and stage.stage in ("pruned", "healed")
            assert (metric.paired_difference_vs_parent is None) == (stage.stage == "parent" or other_vocabulary)
            assert metric.chance == (0.25 if metric.task == "words/next" else None)


def test_the_control_had_every_chance_and_training_is_counted(finished: tuple[BuildOptions, BuildReport]) -> None:
    _, made = finished
    training = {stage.stage: stage.training for stage in made.stages}
    assert training["parent"] is None
    assert training["pruned"] is None
    tuned, healed = training["parent_tuned"], training["healed"]
    assert tuned is not None
    assert healed is not None
    assert 0 < healed.tokens <= tuned.tokens
    assert healed.steps == 6
    assert tuned.steps == 9, "a tenth more than 6 x 256 tokens in steps of 192"


def test_sizes_of_report_plan_and_file_agree(finished: tuple[BuildOptions, BuildReport]) -> None:
    options, made = finished
    plan = json.loads((folder_of(options) / "plan.json").read_text("utf-8"))
    parent, healed = made.stage("parent"), made.stage("healed")
    assert parent is not None
    assert healed is not None
    tensors = weights_of(folder_of(options) / "model")
    assert sum(tensor.numel() for tensor in tensors.values()) == healed.parameters == plan["parameters_after"]
    assert healed.bytes == (folder_of(options) / "model" / "model.safetensors").stat().st_size
    assert 0.7425 * parent.parameters <= healed.parameters <= 0.75 * parent.parameters
    assert sum(made.removed_parameters.values()) == parent.parameters - healed.parameters
    assert parent.bytes == 2 * parent.parameters


def test_the_domain_file_reproduces_the_domain(finished: tuple[BuildOptions, BuildReport]) -> None:
    options, _ = finished
    assert load_domain(str(folder_of(options))) == load_domain(options.domains[0])


def test_stock_transformers_gives_the_same_logits_without_minigpt(
    finished: tuple[BuildOptions, BuildReport], tmp_path: Path
) -> None:
    import numpy as np
    import torch

    from minigpt.assets import load_model, load_tokenizer

    folder = folder_of(finished[0]) / "model"
    script = f"""
import sys, numpy, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(folder)!r}, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})
inputs = tokenizer("Bada gino 38, Würde\\n", return_tensors="pt", add_special_tokens=False)
with torch.inference_mode():
    numpy.save({str(tmp_path / "logits.npy")!r}, model(inputs["input_ids"]).logits.numpy())
    out = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)
assert out.shape[1] == inputs["input_ids"].shape[1] + 5
assert tokenizer.decode(inputs["input_ids"][0]) == "Bada gino 38, Würde\\n"
assert "<|im_start|>user" in tokenizer.apply_chat_template([{{"role": "user", "content": "x"}}], tokenize=False)
assert not any(name.split(".")[0] == "minigpt" for name in sys.modules)
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model, tokenizer = load_model(folder, dtype=torch.float32), load_tokenizer(folder)
    ids = tokenizer("Bada gino 38, Würde\n", return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        wanted = model(ids).logits.numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), wanted, rtol=1e-5, atol=1e-5)


def test_a_finished_build_is_told_at_once(
    finished: tuple[BuildOptions, BuildReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, made = finished

    def fail(*_arguments: object, **_options: object) -> None:
        raise AssertionError("something was computed again")

    monkeypatch.setattr(Workspace, "stage", fail)
    monkeypatch.setattr("minigpt.assets.load_model", fail)
    assert build(options) == made


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"target_size": 0.7504}, {"kinds": ("linear",)}, {"dtype": "float32"}, {"method": "flap"}]
)
def test_other_options_do_not_overwrite_a_finished_build(
    finished: tuple[BuildOptions, BuildReport], changes: dict[str, Any]
) -> None:
    with pytest.raises(MiniGPTError, match="other options") as caught:
        build(replace(finished[0], **changes))
    assert "\n" not in str(caught.value)
    assert report.load(folder_of(finished[0])) == finished[1]


def test_evaluating_the_finished_folder_gives_the_report_s_numbers(
    finished: tuple[BuildOptions, BuildReport], world: World
) -> None:
    """The build's sample is the whole held-out split here, so both measure the same documents."""
    options, made = finished
    stage = pipeline.evaluate_ref(str(folder_of(options)), str(world.domain), device="cpu", seed=options.seed)
    healed = made.stage("healed")
    assert healed is not None
    assert stage.parameters == healed.parameters
    found = {(metric.task, metric.metric): metric for metric in stage.metrics}
    for metric in healed.metrics:
        if metric.task in {"words", "general"}:
            assert found[metric.task, metric.metric].n == metric.n
            assert found[metric.task, metric.metric].value == pytest.approx(metric.value, rel=1e-4)


class Interrupting(Silent):
    """Interrupts the first stage it has not interrupted before; remembers which."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        if title not in self.seen:
            self.seen.append(title)
            raise KeyboardInterrupt
        yield

    def track(self, items: Iterable[T], *, title: str, total: float | None = None) -> Iterator[T]:
        for place, item in enumerate(items):
            if place == 1 and title not in self.seen:
                self.seen.append(title)
                raise KeyboardInterrupt
            yield item


def test_a_build_killed_anywhere_loses_no_finished_stage(world: World, made: Counter[str]) -> None:
    options = world.options("killed", overrides={**CONTROL, "heal.steps": "3", "tune.steps": "1"})
    reporter = Interrupting()
    for _ in range(40):
        try:
            done = build(options, reporter)
            break
        except KeyboardInterrupt:
            assert not (folder_of(options) / "report.json").exists()
            assert not [path for path in (folder_of(options) / "work").iterdir() if path.name.startswith(".")]
    else:
        pytest.fail("the build never came to an end")
    assert {"Tuning the parent (the control)", "Pruning", "Healing", "Report, model card and catalog"} <= set(
        reporter.seen
    )
    assert set(made.values()) == {1}
    assert {"tuned", "plan", "pruned", "healed", "measured_parent", "measured_healed"} <= made.keys()
    assert [entry.domain for entry in catalog.entries()] == ["words"]
    undisturbed = build(replace(options, output_dir=world.root / "undisturbed"))
    for one, other in zip(done.stages, undisturbed.stages, strict=True):
        assert one.metrics == other.metrics


def test_a_build_killed_while_it_is_cataloged_is_cataloged_by_the_next_call(
    world: World, monkeypatch: pytest.MonkeyPatch, made: Counter[str]
) -> None:
    options = world.options("late", overrides=FAST)

    def interrupt(_folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "add", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(options)
    before = Counter(made)
    build(options)
    assert made == before
    assert [entry.path for entry in catalog.entries()] == [str(folder_of(options).resolve())]
    assert not list((folder_of(options) / "work" / "healed").rglob("*.safetensors"))


def test_force_builds_again_with_other_options_and_leaves_other_files(world: World) -> None:
    options = world.options("forced", overrides=FAST)
    build(options)
    kept = folder_of(options) / "notes.txt"
    kept.write_text("mine")
    changed = replace(options, seed=3, force=True)
    assert build(changed).seed == 3
    assert kept.read_text() == "mine"
    assert build(replace(changed, force=False)).seed == 3


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("job", [pipeline.build, pipeline.plan_only])
def test_a_folder_of_somebody_else_is_refused_and_left_alone(
    world: World, tmp_path: Path, force: bool, job: Callable[[BuildOptions], object]
) -> None:
    for name in ("model", "work"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "precious.bin").write_text("x")
    with pytest.raises(MiniGPTError, match=r"mine is not empty and holds no build. Choose another --output-dir\.$"):
        job(world.options("unused", output_dir=tmp_path / "mine", force=force))
    assert sorted(path.name for path in (tmp_path / "mine").rglob("*")) == [
        "model",
        "precious.bin",
        "precious.bin",
        "work",
    ]


def test_an_empty_folder_is_welcome_and_a_file_is_not(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MiniGPTError, match="Choose another"):
        build(world.options("unused", output_dir=tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    assert pipeline.plan_only(world.options("unused", output_dir=tmp_path / "empty", overrides=FAST))


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
    (plan,) = pipeline.plan_only(options)
    assert not (folder_of(options) / "model").exists()
    assert not (folder_of(options) / "report.json").exists()
    assert not [path for path in folder_of(options).rglob("model.safetensors")]
    assert sum(plan.removed_parameters.values()) == plan.parameters_before - plan.parameters_after
    done = build(options)
    assert made["plan"] == made["corpus"] == 1
    assert done.shape_after.intermediate_size == plan.intermediate_size
    assert done.shape_after.layers == plan.layers == 4 - len(plan.removed_layers)


@pytest.mark.slow
def test_another_plan_beside_a_finished_build(world: World) -> None:
    """The tuned parent's weights are gone by then: it is tuned again, and the build stays as it is."""
    options = world.options("beside", overrides={**CONTROL, **FAST, "tune.steps": "1"})
    done = build(options)
    (plan,) = pipeline.plan_only(replace(options, target_size=0.9))
    assert plan.parameters_after > done.stages[-1].parameters
    assert build(options) == done


def test_the_same_seed_gives_the_same_plan(world: World) -> None:
    plans = []
    for name in ("first", "second"):
        options = world.options(name, method="random", overrides={**FAST, "plan.sensitivity": "measure"})
        build(options)
        plans.append((folder_of(options) / "plan.json").read_bytes())
    assert plans[0] == plans[1]
    third = world.options("third", method="random", seed=1, overrides=FAST)
    pipeline.plan_only(third)
    other = json.loads((folder_of(third) / "work" / "plan" / "plan.json").read_text("utf-8"))
    assert other["ffn"] != json.loads(plans[0])["ffn"]


def test_the_parent_s_bytes_follow_the_dtype_when_an_interrupted_build_changes_it(world: World) -> None:
    options = world.options("dtype", overrides=FAST)

    class AtPlan(Silent):
        @contextmanager
        def stage(self, title: str) -> Iterator[None]:
            if title == "Activation statistics and plan":
                raise KeyboardInterrupt
            yield

    with pytest.raises(KeyboardInterrupt):
        build(options, AtPlan())
    made = build(replace(options, dtype="float32"))
    assert made.stages[0].bytes == 4 * made.stages[0].parameters


def test_fixed_widths_are_built(world: World) -> None:
    fixed = {"plan.layers": "3", "plan.intermediate_size": "224", "plan.kv_groups": "1"}
    made = build(world.options("fixed", target_size=0.7, overrides={**FAST, **fixed}))
    after = made.shape_after
    assert (after.layers, after.intermediate_size, after.kv_groups) == (3, 224, 1)


@pytest.mark.parametrize(
    ("changes", "overrides", "said"),
    [
        ({"target_params": 10}, {}, "the nearest is"),
        ({"target_size": 1.5}, {}, "Ask for less"),
        ({"target_bytes": 100}, {}, "Ask for more"),
        ({}, {"plan.layers": "5"}, "layers=5 cannot be cut"),
        ({}, {"plan.vocab_size": "1000"}, "multiple of 64"),
        ({"kinds": ("embedding",)}, {"plan.layers": "3"}, "needs pruning of kind layers"),
    ],
)
def test_what_cannot_be_met_is_refused_before_any_compute(
    world: World, changes: dict[str, Any], overrides: dict[str, str], said: str, made: Counter[str]
) -> None:
    options = world.options("impossible", overrides={**FAST, **overrides}, **changes)
    for job in (pipeline.build, pipeline.plan_only):
        with pytest.raises(PlanError, match=said) as caught:
            job(options)
        assert "\n" not in str(caught.value)
    assert not made.keys() - {"corpus"}


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
