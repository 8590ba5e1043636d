"""A streamed cut writes what a cut in memory saves: equal files, and equal records of the repair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt import assets
from minigpt.errors import PlanError
from minigpt.methods.cut import cut_units, trim_vocabulary
from minigpt.methods.table import method_named
from minigpt.pruning import vocab
from minigpt.pruning.settings import RepairSettings
from minigpt.pruning.waiting import PROCESSOR, Home, OnDisk
from minigpt.streaming.saving import prune_to_folder
from minigpt.transformer.arch import parameters_of, shape_of
from minigpt.types import PrunePlan
from tests.support.archsuite import keep_all, random_batch, some_plan
from tests.support.streamed import STREAMED, saved, streamed, whole

BATCHES = [random_batch(seed=seed, rows=2, length=24) for seed in range(3)]
REPAIR = RepairSettings(tokens=1000)


# Families that differ in what a repair meets: fused and transposed matrices, norms behind, experts, positions, biases.
DIFFERENT = ("llama", "gemma3_text", "phi3", "gpt2", "gpt_neox", "opt", "gpt_oss", "olmo2", "cohere2", "glm4")
DIFFERENT += ("qwen3_moe", "mixtral", "granitemoe", "qwen2_moe")


def families() -> list[Any]:
    """List all families; those that differ in nothing of DIFFERENT are left to the slow tests."""
    return [pytest.param(name, marks=() if name in DIFFERENT else (pytest.mark.slow,)) for name in STREAMED]


def sized(model: Any, plan: PrunePlan) -> PrunePlan:
    """Fill in the size that the plan leaves."""
    shape = replace(
        shape_of(model),
        layers=len(plan.layers),
        intermediate_size=len(plan.ffn[0]),
        kv_groups=len(plan.kv_groups[0]),
        experts=len(plan.experts[0]) if plan.experts else shape_of(model).experts,
        vocab_size=len(plan.tokens) if plan.tokens is not None else shape_of(model).vocab_size,
    )
    return replace(plan, parameters_after=parameters_of(model, shape))


def both(folder: Path, plan: PrunePlan, repair: RepairSettings | None, home: Home = PROCESSOR) -> tuple[Any, Any]:
    """Cut a saved parent in memory and streamed, its text at `home`, and return the records of the repairs."""
    tokenizer, method = assets.load_tokenizer(folder), method_named("contextual")
    model, expected = cut_units(whole(folder), plan, method, repair=repair, batches=BATCHES)
    model, smaller = trim_vocabulary(model, tokenizer, plan)
    model.to(torch.bfloat16).save_pretrained(folder / "whole")
    smaller.save_pretrained(folder / "whole")
    parent, out = streamed(folder, home), folder / "streamed"
    report = prune_to_folder(parent, tokenizer, plan, out, dtype=torch.bfloat16, repair=repair, batches=BATCHES)
    return expected, report


def assert_same_weights(folder: Path) -> None:
    names = ("model.safetensors", "generation_config.json", "tokenizer.json")
    for name in names:
        assert (folder / "streamed" / name).read_bytes() == (folder / "whole" / name).read_bytes(), name
    configs = [assets.load_model(folder / name).config.to_dict() for name in ("streamed", "whole")]
    assert configs[0] | {"_name_or_path": ""} == configs[1] | {"_name_or_path": ""}


@pytest.mark.parametrize("family", families())
def test_a_repaired_cut_is_the_same_to_the_byte(tmp_path: Path, family: str) -> None:
    saved(tmp_path, family, tied=family not in {"llama", "gpt_neox", "phi"})
    model = whole(tmp_path)
    expected, report = both(tmp_path, sized(model, some_plan(model)), REPAIR)
    assert_same_weights(tmp_path)
    assert replace(report, seconds=0.0) == replace(expected, seconds=0.0)


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "gemma3_text"])
@pytest.mark.parametrize("repair", [REPAIR, replace(REPAIR, sequential=False)], ids=["sequential", "apart"])
def test_text_that_waits_on_the_disk_changes_no_byte(tmp_path: Path, family: str, repair: RepairSettings) -> None:
    saved(tmp_path, family)
    model, home = whole(tmp_path), OnDisk(tmp_path / "work")
    expected, report = both(tmp_path, sized(model, some_plan(model)), repair, home)
    assert_same_weights(tmp_path)
    assert replace(report, seconds=0.0) == replace(expected, seconds=0.0)
    assert home.size > 0
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "gpt_oss", "gemma3_text", "qwen3_moe"])
def test_a_plain_cut_is_the_same_to_the_byte(tmp_path: Path, family: str) -> None:
    saved(tmp_path, family)
    model = whole(tmp_path)
    assert both(tmp_path, sized(model, some_plan(model, layers=(1, 3))), None) == (None, None)
    assert_same_weights(tmp_path)


@pytest.mark.parametrize("repair", [None, REPAIR, replace(REPAIR, sequential=False), replace(REPAIR, target="output")])
def test_a_smaller_vocabulary_is_the_same_to_the_byte(tmp_path: Path, repair: RepairSettings | None) -> None:
    saved(tmp_path, "qwen2", tied=False)
    model, tokenizer = whole(tmp_path), assets.load_tokenizer(tmp_path)
    tokens = vocab.keep_tokens(tokenizer, {}, 384)
    expected, report = both(tmp_path, sized(model, replace(some_plan(model), tokens=tokens)), repair)
    assert_same_weights(tmp_path)
    assert (report is None) == (expected is None)


@pytest.mark.parametrize("repair", [None, REPAIR])
def test_a_plan_that_keeps_everything_changes_nothing(tmp_path: Path, repair: RepairSettings | None) -> None:
    saved(tmp_path, "llama")
    both(tmp_path, sized(whole(tmp_path), keep_all(whole(tmp_path))), repair)
    assert_same_weights(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    assert (tmp_path / "streamed" / "model.safetensors").read_bytes() == before


def test_a_wrong_size_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    plan = replace(some_plan(whole(tmp_path)), parameters_after=5)
    with pytest.raises(PlanError, match="the plan says 5"):
        prune_to_folder(
            streamed(tmp_path), assets.load_tokenizer(tmp_path), plan, tmp_path / "out", dtype=torch.bfloat16
        )
