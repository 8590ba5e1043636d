"""Builds of delta tickets: what the folder holds, what the report says, and every use of a model takes a ticket."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import minigpt
from minigpt import assets
from minigpt.errors import AssetError, ConfigError, MiniGPTError, PlanError
from minigpt.files import read_json
from minigpt.models import catalog, find
from minigpt.pipeline import BuildOptions, delta
from minigpt.pipeline.recipe import read_recipe
from minigpt.pipeline.run import build_key, resolve_run
from minigpt.progress import SILENT
from minigpt.tickets.delta_store import DeltaRecord
from tests.pipeline.test_resume import Interrupting
from tests.support.building import build, folder_of, values_given, weights_of
from tests.support.tiny import tiny_model
from tests.support.worlds import CONTROL, World

pytestmark = pytest.mark.usefixtures("home")

TICKET = {**CONTROL, "delta.rounds": "2", "delta.steps": "6", "delta.learning_rate": "0.01"}
QUICK = {"heal.steps": "2", "delta.steps": "2", "evaluation.general": "false"}


def options(world: World, folder: str, **changes: Any) -> BuildOptions:
    values: dict[str, Any] = {"delta": 0.1, "target_size": None, "overrides": TICKET}
    return world.options(folder, **(values | changes))


def test_a_ticket_build_keeps_changes_and_no_model(world: World) -> None:
    built = options(world, "kept")
    report = build(built)
    folder = folder_of(built)
    assert [stage.stage for stage in report.stages] == ["parent", "parent_tuned", "delta"]
    assert (report.method, report.target) == ("delta", "10 % of the weights changed")
    assert not (folder / "model").exists()
    assert {path.name for path in (folder / "delta").iterdir()} == {"delta.safetensors", "delta.json", "README.md"}
    assert not [path for path in (folder / "work").rglob("*.safetensors")]
    record = read_json(folder / "delta" / "delta.json", DeltaRecord)
    stage = report.stage("delta")
    assert stage is not None
    assert 0 < record.fraction <= 0.1001
    files = [folder / "delta" / name for name in ("delta.safetensors", "delta.json")]
    assert stage.bytes == sum(path.stat().st_size for path in files)
    for result in stage.metrics:
        assert result.paired_difference_vs_parent is not None
        assert result.paired_difference_vs_tuned is not None
    before, after = weights_of(world.base), weights_of(find.find_model(str(folder)).path)
    differing = sum(int((after[name] != before[name].to(torch.bfloat16)).sum()) for name in before)
    assert differing == record.changed
    card = (folder / "delta" / "README.md").read_text("utf-8")
    assert "minigpt.load" in card
    assert "AutoModelForCausalLM" not in card


def test_every_use_of_a_model_takes_a_ticket(world: World) -> None:
    built = options(world, "used")
    report = build(built)
    (entry,) = catalog.entries()
    assert entry.id.startswith("words-delta-")
    assert "delta/delta.safetensors" in entry.hashes
    for name in (entry.id, str(folder_of(built)), str(folder_of(built) / "delta")):
        model, tokenizer = minigpt.load(name)
        assert sum(p.numel() for p in model.parameters()) == report.stages[0].parameters
        assert find.find_config(name).vocab_size == len(tokenizer)
    assert find.find_report(entry.id) == report
    measured = minigpt.evaluate(entry.id, on=str(world.domain))
    ours = {result.metric: result.value for result in report.stages[-1].metrics if result.task == "words"}
    again = {result.metric: result.value for result in measured.metrics if result.task == "words"}
    assert again["bits_per_byte"] == pytest.approx(ours["bits_per_byte"], rel=1e-3)
    assert set(catalog.verify(entry.id)[entry.id].values()) == {"ok"}
    path = folder_of(built) / "delta" / "delta.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert catalog.verify(entry.id)[entry.id]["delta/delta.safetensors"] == "changed"
    with pytest.raises(AssetError, match="damaged"):
        minigpt.load(entry.id)


def test_a_ticket_killed_anywhere_loses_no_finished_stage(world: World, made: Counter[str]) -> None:
    built = options(world, "killed")
    reporter = Interrupting()
    for _ in range(40):
        try:
            report = build(built, reporter)
            break
        except KeyboardInterrupt:
            assert not (folder_of(built) / "report.json").exists()
    else:
        pytest.fail("the build never came to an end")
    assert any(title.startswith("Round 2 of 2") for title in reporter.seen)
    assert set(made.values()) == {1}
    undisturbed = build(options(world, "undisturbed"))
    assert report.stages[-1].metrics == undisturbed.stages[-1].metrics
    assert build(built).fingerprints == report.fingerprints  # finished: printed at once


def test_without_a_tuned_parent_all_weights_are_trained_first(world: World) -> None:
    report = build(options(world, "quick", overrides={**QUICK, "delta.values": "int4"}))
    assert [stage.stage for stage in report.stages] == ["parent", "delta"]
    training = report.stages[-1].training
    assert training is not None
    assert training.steps == 4
    assert "from all weights trained" in training.recipe


def test_the_recipe_repeats_the_ticket(world: World) -> None:
    built = options(world, "recipe", overrides=QUICK)
    build(built)
    again = read_recipe(folder_of(built) / "recipe.yaml")
    assert again.delta == built.delta
    assert again.target_size is None


def test_builds_without_a_ticket_keep_their_name_whatever_the_settings_of_tickets(world: World) -> None:
    plain = world.options("plain")
    other = world.options("plain", overrides={"delta.rounds": "7"})
    keys = [build_key(resolve_run(given.domains[0], given, SILENT)) for given in (plain, other)]
    assert keys[0] == keys[1]
    tickets = [options(world, "plain", delta=share) for share in (0.1, 0.2)]
    keys += [build_key(resolve_run(given.domains[0], given, SILENT)) for given in tickets]
    assert len(set(keys)) == 3


def test_another_build_in_the_folder_is_refused_and_force_replaces_the_ticket(world: World) -> None:
    built = options(world, "other", overrides=QUICK)
    build(built)
    plain = world.options("other", overrides={"heal.steps": "0", "evaluation.general": "false"})
    with pytest.raises(MiniGPTError, match="other options"):
        build(plain)
    build(world.options("other", overrides={"heal.steps": "0", "evaluation.general": "false"}, force=True))
    assert not (folder_of(built) / "delta").exists()
    assert (folder_of(built) / "model").is_dir()


@pytest.mark.parametrize(
    "changes", [{"target_size": 0.5}, {"masked": True}, {"kinds": ("linear",)}, {"method": "random"}]
)
def test_a_ticket_has_no_size(world: World, changes: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="A delta ticket removes nothing"):
        options(world, "x", **changes)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_outside_of_its_range_is_refused(world: World, share: float) -> None:
    with pytest.raises(ConfigError, match="share of changed weights"):
        options(world, "x", delta=share)


def test_the_parent_of_a_ticket_may_not_be_gone(world: World, tmp_path: Path) -> None:
    import shutil

    built = options(world, "moved", overrides=QUICK, base=str(tmp_path / "parent"))
    shutil.copytree(world.base, tmp_path / "parent")
    build(built)
    record = json.loads((folder_of(built) / "delta" / "delta.json").read_text("utf-8"))
    assert record["base"] == str(tmp_path / "parent")
    shutil.rmtree(tmp_path / "parent")
    with pytest.raises(AssetError, match=str(tmp_path / "parent")):
        minigpt.load(folder_of(built))


@pytest.mark.parametrize(("family", "dtype"), [("llama", "float32"), ("gpt_oss", "float16"), ("gpt2", "float32")])
def test_rounds_in_every_stored_type_leave_the_parent_as_it_was(
    world: World, tmp_path: Path, family: str, dtype: str
) -> None:
    """Tensors that need no other type for training are copied, too; some families keep some of them in fp32."""
    tokenizer = assets.load_tokenizer(world.base)
    parent = tiny_model(family, vocab_size=len(tokenizer), layers=2)
    parent.save_pretrained(tmp_path / "parent")
    tokenizer.save_pretrained(tmp_path / "parent")
    built = options(world, f"{family}-{dtype}", base=str(tmp_path / "parent"), dtype=dtype)
    build(built)
    record = read_json(folder_of(built) / "delta" / "delta.json", DeltaRecord)
    assert record.fraction <= 0.1001
    stored = {name: weight.data.to(getattr(torch, dtype)) for name, weight in parent.named_parameters()}
    after = weights_of(find.find_model(str(folder_of(built))).path)
    differing = sum(
        int((after[name].to(value.dtype) != value).sum()) for name, value in stored.items() if name in after
    )
    assert 0 < differing <= record.changed


def test_a_parent_that_moved_is_named_and_can_be_shown(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(world.base, tmp_path / "here")
    built = options(world, "elsewhere", base=str(tmp_path / "here"), overrides={**TICKET, **QUICK})
    build(built)
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    with pytest.raises(AssetError, match=r"needs its parent .*here, which cannot be had.*set MINIGPT_PARENT"):
        minigpt.load(folder_of(built))
    monkeypatch.setenv("MINIGPT_PARENT", str(tmp_path / "there"))
    model, _ = minigpt.load(folder_of(built))
    config = json.loads((Path(model.name_or_path) / "config.json").read_text())
    assert "rope_theta" in config and "torch_dtype" in config  # for readers of transformers 4


def test_a_bound_on_general_text_holds_in_every_round(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = values_given(monkeypatch, delta, "train_masked", "bound")
    build(options(world, "bounded", keep_general=1.5))
    assert len(bounds) == 2 and all(bound is not None and bound.limit > 0 for bound in bounds)
