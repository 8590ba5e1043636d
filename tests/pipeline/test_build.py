"""Whole builds of a small world: what they leave behind, how they resume, what they refuse, and what they keep."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import minigpt
from minigpt import report
from minigpt.corpus.dedup import words
from minigpt.domain.config import load_domain
from minigpt.errors import AssetError, MiniGPTError
from minigpt.integrity import SUMS, read_sums, seal
from minigpt.models.push import pack
from minigpt.pipeline import BuildOptions
from minigpt.pipeline.chat import UNTRIED
from minigpt.pipeline.rescore import rescore
from minigpt.pipeline.workspace import Workspace
from minigpt.results import BuildReport
from tests.support.building import build, folder_of, weights_of
from tests.support.worlds import CONTROL, World

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildOptions, BuildReport]:
    """A finished build with a tuned parent, its catalog elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIGPT_HOME", str(tmp_path_factory.mktemp("home")))
        options = world.options("finished", overrides=CONTROL)
        return options, build(options)


def test_a_build_leaves_what_the_contract_says(finished: tuple[BuildOptions, BuildReport]) -> None:
    options, made = finished
    folder = folder_of(options)
    names = {path.name for path in folder.iterdir()}
    assert {"model", "report.json", "plan.json", "domain.yaml", "sbom.json"} <= names
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
    assert UNTRIED in made.notes
    assert made.domain == "words"


def test_what_is_pushed_of_a_build_names_no_folder_of_this_machine(
    finished: tuple[BuildOptions, BuildReport], world: World
) -> None:
    for file in pack(str(folder_of(finished[0])), "acme/words").files:
        data = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        assert file.name.endswith(".safetensors") or str(world.root).encode() not in data, file.name


def test_every_stage_is_measured_on_every_task_once(finished: tuple[BuildOptions, BuildReport]) -> None:
    _, made = finished
    for stage in made.stages:
        found = Counter((metric.task, metric.metric) for metric in stage.metrics)
        assert set(found.values()) == {1}
        assert stage.opening in {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "\n"}
        assert {("words", "bits_per_byte"), ("general", "bits_per_byte"), ("words/next", "accuracy")} <= found.keys()
        for metric in stage.metrics:
            assert metric.low <= metric.value <= metric.high
            assert metric.effective_n is not None
            assert 1 <= metric.effective_n <= metric.n + 1e-9
            other_vocabulary = metric.metric == "token_perplexity" and stage.stage in ("pruned", "healed")
            assert (metric.paired_difference_vs_parent is None) == (stage.stage == "parent" or other_vocabulary)
            assert metric.chance == (0.25 if metric.task == "words/next" else None)


def test_the_tuned_parent_had_every_chance_and_training_is_counted(finished: tuple[BuildOptions, BuildReport]) -> None:
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
    changed = next(iter(changes))
    assert f"{'size' if changed == 'target_size' else changed} " in str(caught.value) and ", now " in str(caught.value)
    assert report.load(folder_of(finished[0])) == finished[1]


def test_evaluating_the_finished_folder_gives_the_report_s_numbers(
    finished: tuple[BuildOptions, BuildReport], world: World
) -> None:
    """The build's sample is the whole held-out split here, so both measure the same documents."""
    options, made = finished
    stage = minigpt.evaluate(str(folder_of(options)), str(world.domain), device="cpu", seed=options.seed)
    healed = made.stage("healed")
    assert healed is not None
    assert stage.parameters == healed.parameters
    assert stage.opening == healed.opening
    found = {(metric.task, metric.metric): metric for metric in stage.metrics}
    for metric in healed.metrics:
        # What was trained on is known to the build alone, and so is what could be recited.
        if metric.task in {"words", "general"} and metric.metric != "recitation":
            assert found[metric.task, metric.metric].n == metric.n
            assert found[metric.task, metric.metric].value == pytest.approx(metric.value, rel=1e-4)


def test_no_text_of_the_build_lands_in_card_bill_or_plan(
    world: World, finished: tuple[BuildOptions, BuildReport]
) -> None:
    """Not even 8 words in a row; the prompt, which the domain file makes public, has 4."""
    options, _ = finished
    folder = folder_of(options)
    texts = [json.loads(line)["text"] for line in (world.root / "docs" / "texts.jsonl").read_text().splitlines()]
    texts += [path.read_text() for path in (world.root / "general").iterdir()]
    public = [folder / "model" / "README.md", folder / "sbom.json", folder / "plan.json", folder / "domain.yaml"]
    runs = hash_runs_of(texts)
    assert len(runs) > 1000
    for path in public:
        assert not hash_runs_of([path.read_text("utf-8")]) & runs, path.name


def hash_runs_of(texts: list[str]) -> set[tuple[str, ...]]:
    """All runs of 8 words of texts."""
    split = [words(text) for text in texts]
    return {tuple(text[place : place + 8]) for text in split for place in range(len(text) - 7)}


def test_a_finished_build_measured_again_gives_the_numbers_of_its_report(
    finished: tuple[BuildOptions, BuildReport],
) -> None:
    options, written = finished
    again = rescore(folder_of(options))
    assert {(item.task, item.metric) for item in again} == {
        (metric.task, metric.metric) for metric in written.stages[-1].metrics if not metric.task.endswith("/unseen")
    }
    assert all(item.agrees and item.measured == pytest.approx(item.reported, rel=1e-6) for item in again)


def test_text_that_changed_since_the_build_is_named(finished: tuple[BuildOptions, BuildReport], tmp_path: Path) -> None:
    """Other numbers on other text would say nothing of the model."""
    folder = tmp_path / "copy"
    shutil.copytree(folder_of(finished[0]), folder)
    report.save(
        replace(finished[1], fingerprints={**finished[1].fingerprints, "words": "0" * 16}), folder / "report.json"
    )
    sums = folder / "work" / SUMS
    known = read_sums(sums)
    assert known is not None
    seal(folder, names=known.files, key=known.key, at=sums)
    with pytest.raises(AssetError, match="The text of words is no longer that of the build"):
        rescore(folder)
