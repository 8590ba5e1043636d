from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import minigpt
from minigpt.cli.console import PlainReporter
from minigpt.errors import AssetError, ConfigError
from minigpt.files import read_json
from minigpt.models import merge
from minigpt.models.merge import MERGE, MergeRecord, merge_tickets, read_merge_recipe
from minigpt.tickets.delta import parameters_of
from minigpt.tickets.delta_merge import merged
from minigpt.tickets.delta_store import read
from tests.support.building import build, folder_of
from tests.support.commands import run
from tests.support.worlds import World

pytestmark = pytest.mark.usefixtures("home")
QUICK = {"heal.steps": "4", "delta.steps": "4", "evaluation.general": "false", "delta.learning_rate": "0.01"}


def ticket(world: World, name: str, **changes: Any) -> Path:
    options = world.options(name, delta=0.05, target_size=None, overrides=QUICK, **changes)
    build(options)
    return folder_of(options)


def test_two_tickets_become_one_by_the_rule_that_is_best_on_dev_text(world: World, tmp_path: Path) -> None:
    folders = [ticket(world, name, seed=seed) for seed, name in enumerate(("one", "two"))]
    stream = io.StringIO()
    plain = PlainReporter(stream)
    result = merge_tickets([str(folder) for folder in folders], tmp_path / "both", device="cpu", reporter=plain)
    begun = [line for line in stream.getvalue().splitlines() if line.startswith("Stage") and line.endswith("...")]
    assert [line.partition(":")[0] for line in begun] == [f"Stage {number} of 5" for number in range(1, 6)]
    assert "Stage 4 of 5: Trying 18 ways to merge ..." in begun
    assert read_json(tmp_path / "both" / "merge.json", MergeRecord) == result
    assert max(result.dev) == min(result.tried.values())
    assert len(result.tried) == len(merge.RULES) * len(merge.SCALES)
    model, _ = minigpt.load(tmp_path / "both", dtype="bfloat16")
    parent, _ = minigpt.load(str(world.base), dtype="bfloat16")
    expected = merged(
        parameters_of(parent), [read(folder / "delta").changes for folder in folders], result.rule, result.scale
    )
    for name, tensor in parameters_of(model).items():
        assert tensor.equal(expected[name])
    assert read_merge_recipe(tmp_path / "both" / "recipe.yaml").tickets == tuple(map(str, folders))
    again = run("merge", str(tmp_path / "both" / "recipe.yaml"), "--output-dir", str(tmp_path / "again"))
    assert again.exit_code == 0, again.output
    weights = [tmp_path / name / "delta" / "delta.safetensors" for name in ("both", "again")]
    assert read_json(tmp_path / "again" / "merge.json", MergeRecord) == result
    assert load_file(weights[0]).keys() == load_file(weights[1]).keys()
    (tmp_path / "bad.yaml").write_text("tickets: [a, b]\ndev_bytes: 0\n")
    assert "dev_bytes" in run("merge", str(tmp_path / "bad.yaml"), "--output-dir", str(tmp_path / "x")).output


def test_what_cannot_be_merged_is_refused(world: World, tmp_path: Path) -> None:
    first = ticket(world, "first")
    with pytest.raises(ConfigError, match="two or more"):
        merge_tickets([str(first)], tmp_path / "x")
    with pytest.raises(AssetError, match="no build of a delta ticket"):
        merge_tickets([str(first), str(world.base)], tmp_path / "x")
    model, tokenizer = minigpt.load(world.base)
    model.model.norm.weight.data[0] += 1
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    second = ticket(world, "second", base=str(tmp_path / "other"))
    with pytest.raises(AssetError, match="another parent"):
        merge_tickets([str(first), str(second)], tmp_path / "x")
    merge_tickets([str(first), str(first)], tmp_path / "x", device="cpu")
    with pytest.raises(ConfigError, match="exists already"):
        merge_tickets([str(first), str(first)], tmp_path / "x")
    (tmp_path / "x" / MERGE).unlink()  # as a kill before the last file leaves it
    merge_tickets([str(first), str(first)], tmp_path / "x", device="cpu")
    assert (tmp_path / "x" / MERGE).exists()


def test_a_merge_reads_each_ticket_once_and_all_of_them_each_way() -> None:
    works = merge.works_of(3, 18)
    assert (works["own"].operations, works["rules"].operations, works["rules"].per_item) == (3.0, 54.0, 3.0)
