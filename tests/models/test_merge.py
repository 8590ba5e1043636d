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
from minigpt.healing.stored import Store
from minigpt.models import merge
from minigpt.models.merge import MERGE, MergeRecord, merge_tickets
from minigpt.models.merge_recipe import MergeRecipe, read_merge_recipe
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


def recipe_of(*folders: Path, **changes: Any) -> MergeRecipe:
    return MergeRecipe(tickets=tuple(map(str, folders)), device="cpu", **changes)


def test_two_tickets_become_one_by_the_rule_that_is_best_on_dev_text(world: World, tmp_path: Path) -> None:
    folders = [ticket(world, name, seed=seed) for seed, name in enumerate(("one", "two"))]
    stream = io.StringIO()
    plain = PlainReporter(stream)
    result = merge_tickets(recipe_of(*folders), tmp_path / "both", reporter=plain)
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
        merge_tickets(recipe_of(first), tmp_path / "x")
    with pytest.raises(AssetError, match="no build of a delta ticket"):
        merge_tickets(recipe_of(first, world.base), tmp_path / "x")
    model, tokenizer = minigpt.load(world.base)
    model.model.norm.weight.data[0] += 1
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    second = ticket(world, "second", base=str(tmp_path / "other"))
    with pytest.raises(AssetError, match="another parent"):
        merge_tickets(recipe_of(first, second), tmp_path / "x")
    merge_tickets(recipe_of(first, first), tmp_path / "x")
    with pytest.raises(ConfigError, match="exists already"):
        merge_tickets(recipe_of(first, first), tmp_path / "x")
    (tmp_path / "x" / MERGE).unlink()  # as a kill before the last file leaves it
    merge_tickets(recipe_of(first, first), tmp_path / "x")
    assert (tmp_path / "x" / MERGE).exists()


def test_a_merge_reads_each_ticket_once_and_all_of_them_each_way() -> None:
    works = merge.works_of(3, 18)
    assert (works["own"].operations, works["rules"].operations, works["rules"].per_item) == (3.0, 54.0, 3.0)


def test_healing_trains_only_what_the_tickets_change_and_each_ticket_teaches_its_own_text(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "SCALES", (6.0,))  # far too much, so that there is something to heal
    folders = [ticket(world, name, seed=seed) for seed, name in enumerate(("one", "two"))]
    stream = io.StringIO()
    recipe = recipe_of(*folders, heal=6, learning_rate=0.01)
    result = merge_tickets(recipe, tmp_path / "both", reporter=PlainReporter(stream))
    begun = [line for line in stream.getvalue().splitlines() if line.startswith("Stage") and line.endswith("...")]
    assert begun[-3:] == [
        "Stage 5 of 7: Storing the answers of each ticket ...",
        "Stage 6 of 7: Healing the merged ticket ...",
        "Stage 7 of 7: Writing the merged ticket ...",
    ]
    assert result.healing is not None
    assert result.healing.steps == 6
    assert max(result.dev) < max(result.unhealed) == min(result.tried.values())
    changes = [read(folder / "delta").changes for folder in folders]
    healed = read(tmp_path / "both" / "delta").changes
    for name, change in healed.items():
        allowed = {int(place) for ticket in changes if name in ticket for place in ticket[name].positions}
        assert {int(place) for place in change.positions} <= allowed
    assert not (tmp_path / "both" / "merging").exists()
    kept = read_merge_recipe(tmp_path / "both" / "recipe.yaml")
    assert (kept.heal, kept.learning_rate) == (6, 0.01)


def test_a_killed_healing_goes_on_with_its_answers(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [ticket(world, name, seed=seed) for seed, name in enumerate(("one", "two"))]
    recipe = recipe_of(*folders, heal=4)
    whole = merge_tickets(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(merge, "heal_merged", killed)
        with pytest.raises(KeyboardInterrupt):
            merge_tickets(recipe, tmp_path / "both")
    answers = {path: path.stat().st_mtime_ns for path in (tmp_path / "both" / "merging" / "answers").iterdir()}
    assert answers
    written: list[Path] = []
    monkeypatch.setattr(Store, "write", lambda _store, part, _answers: written.append(part.path))
    assert merge_tickets(recipe, tmp_path / "both").dev == whole.dev
    assert written == []


def killed(*_arguments: Any, **_named: Any) -> None:
    raise KeyboardInterrupt


def test_a_healing_that_makes_a_domain_worse_is_not_used(world: World, tmp_path: Path) -> None:
    folders = [ticket(world, name, seed=seed) for seed, name in enumerate(("one", "two"))]
    result = merge_tickets(recipe_of(*folders, heal=1, learning_rate=1e-12), tmp_path / "both")
    assert result.healing is None
    assert result.dev == result.unhealed
    shown = run("merge", *map(str, folders), "--heal", "1", "--output-dir", str(tmp_path / "shown"))
    assert "healing" in shown.output
