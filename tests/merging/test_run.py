from __future__ import annotations

import io
import json
import signal
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from safetensors.torch import load_file

import minigpt
from minigpt.cli.console import PlainReporter
from minigpt.errors import AssetError, ConfigError
from minigpt.files import read_json
from minigpt.healing import run as training_run
from minigpt.healing.stored import Store
from minigpt.merging import healing, ways
from minigpt.merging import run as run_module
from minigpt.merging.parts import part_of, read_parts
from minigpt.merging.recipe import MergeRecipe, read_merge_recipe
from minigpt.merging.run import MERGE, MergeRecord, merge_tickets
from minigpt.tickets.delta import parameters_of
from minigpt.tickets.delta_merge import RULES, merged
from minigpt.tickets.delta_store import read
from tests.support.building import build, folder_of
from tests.support.commands import run
from tests.support.worlds import World, documents, words

pytestmark = pytest.mark.usefixtures("home")
QUICK = {"heal.steps": "4", "delta.steps": "4", "evaluation.general": "false"}


@pytest.fixture(scope="module")
def other(world: World) -> Path:
    """Another domain beside that of the world, with words of its own."""
    draw = Random(5)
    rows = [{"text": text, "source": f"sign{at}"} for at, text in enumerate(documents(draw, words(draw, 900), 48))]
    (world.root / "signs").mkdir()
    (world.root / "signs" / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    definition = world.domain.read_text().replace("name: words", "name: signs").replace("file: docs", "file: signs")
    (world.root / "signs.yaml").write_text(definition)
    return world.root / "signs.yaml"


def ticket(world: World, name: str, rate: float = 0.01, **changes: Any) -> Path:
    overrides = {**QUICK, "delta.learning_rate": str(rate)}
    options = world.options(name, delta=0.05, target_size=None, overrides=overrides, **changes)
    build(options)
    return folder_of(options)


@pytest.fixture
def folders(world: World, other: Path) -> list[Path]:
    """Builds of two domains."""
    return [ticket(world, "one"), ticket(world, "two", domains=(str(other),))]


def recipe_of(*folders: Path, **changes: Any) -> MergeRecipe:
    return MergeRecipe(tickets=tuple(map(str, folders)), device="cpu", **changes)


def test_two_tickets_become_one_by_the_rule_that_is_best_on_dev_text(
    world: World, folders: list[Path], tmp_path: Path
) -> None:
    stream = io.StringIO()
    plain = PlainReporter(stream)
    result = merge_tickets(recipe_of(*folders), tmp_path / "both", reporter=plain)
    begun = [line for line in stream.getvalue().splitlines() if line.startswith("Stage") and line.endswith("...")]
    assert [line.partition(":")[0] for line in begun] == [f"Stage {number} of 5" for number in range(1, 6)]
    assert "Stage 4 of 5: Trying 18 ways to merge ..." in begun
    assert read_json(tmp_path / "both" / "merge.json", MergeRecord) == result
    assert max(result.dev) == min(result.tried.values())
    assert len(result.tried) == len(RULES) * len(ways.SCALES)
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
    (tmp_path / "x" / run_module.WORK).mkdir()
    merge_tickets(recipe_of(first, first), tmp_path / "x")
    assert (tmp_path / "x" / MERGE).exists()
    before = sorted(path.name for path in first.iterdir())
    with pytest.raises(ConfigError, match="of another command"):
        merge_tickets(recipe_of(first, first), first)
    assert sorted(path.name for path in first.iterdir()) == before


def test_the_work_of_a_merge_is_the_text_that_it_reads() -> None:
    works = ways.works_of([10, 20])
    assert (works["own"].operations, works["rules"].operations, works["rules"].per_item) == (30.0, 18 * 30.0, 30.0)


def test_the_time_that_is_left_counts_the_healing_from_the_beginning() -> None:
    assert healing.works_of(recipe_of(heal=0)) == {}
    works = healing.works_of(recipe_of(heal=10))
    tokens = works["answers"].operations
    assert works["heal"].operations == 3 * tokens == 10 * works["heal"].per_item
    assert healing.works_of(recipe_of(heal=10), most=tokens / 2)["answers"].operations == tokens / 2


def test_healing_trains_only_what_the_tickets_change(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "SCALES", (60.0,))  # far too much, so that there is something to heal
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
    assert result.healing.recipe.startswith("changed weights, KL to the teacher, AdamW")
    assert result.is_healed
    assert max(result.dev) < max(result.unhealed) == min(result.tried.values())
    changes = [read(folder / "delta").changes for folder in folders]
    for name, change in read(tmp_path / "both" / "delta").changes.items():
        allowed = {int(place) for ticket in changes if name in ticket for place in ticket[name].positions}
        assert {int(place) for place in change.positions} <= allowed
    assert not (tmp_path / "both" / ".merging").exists()
    kept = read_merge_recipe(tmp_path / "both" / "recipe.yaml")
    assert (kept.heal, kept.learning_rate) == (6, 0.01)


def test_each_ticket_teaches_its_own_training_text(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons: list[Any] = []
    plain = healing.store_lessons

    def store_lessons(given: Any, *arguments: Any, **named: Any) -> Any:
        lessons.extend(given)
        return plain(given, *arguments, **named)

    monkeypatch.setattr(healing, "store_lessons", store_lessons)
    merge_tickets(recipe_of(*folders, heal=2), tmp_path / "both")
    tokenizer = minigpt.load(tmp_path / "both")[1]
    texts = read_parts([part_of(str(folder)) for folder in folders])
    for lesson, folder, text in zip(lessons, folders, texts, strict=True):
        own = parameters_of(minigpt.load(folder, dtype="bfloat16")[0])
        assert all(tensor.equal(own[name]) for name, tensor in lesson.weights().items())
        whole = " ".join(document.text for document in text.train)
        assert all(tokenizer.decode(window[1:], skip_special_tokens=True) in whole for window in lesson.text.windows)
        dev = " ".join(document.text for document in text.dev)
        assert all(tokenizer.decode(window[1:], skip_special_tokens=True) in dev for window in lesson.dev.windows)


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("place", ["heal_merged", "training", "write"])
def test_a_killed_merge_goes_on_and_gives_the_same_ticket(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(ways, "SCALES", (60.0,))
    recipe = recipe_of(*folders, heal=6, learning_rate=0.01)
    whole = merge_tickets(recipe, tmp_path / "whole")
    assert whole.is_healed

    def killed(*_arguments: Any, **_named: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        if place == "training":
            stop_within(patch, step=4)
        else:
            patch.setattr(healing if place == "heal_merged" else run_module, place, killed)
        with pytest.raises((Killed, KeyboardInterrupt)):
            merge_tickets(recipe, tmp_path / "both")
    work = tmp_path / "both" / ".merging"
    assert (work / "checkpoint.safetensors").exists() == (place == "training")
    assert (work / "healed.json").exists() == (place == "write")
    written: list[Path] = []
    plain = Store.write
    monkeypatch.setattr(
        Store, "write", lambda store, part, answers: written.append(part) or plain(store, part, answers)
    )
    monkeypatch.setattr(ways, "merged", killed)  # no way is tried again
    if place == "write":
        monkeypatch.setattr(healing, "heal_merged", killed)
    steps = stop_within(monkeypatch, step=0)
    assert without_times(merge_tickets(recipe, tmp_path / "both")) == without_times(whole)
    assert written == []
    assert len(steps) == {"heal_merged": 6, "training": 2, "write": 0}[place]
    sums = [read(tmp_path / name / "delta").record.sha256 for name in ("whole", "both")]
    assert sums[0] == sums[1]


def without_times(record: MergeRecord) -> MergeRecord:
    """The record without the seconds of its training."""
    assert record.healing is not None
    return replace(record, healing=replace(record.healing, seconds=0.0))


def stop_within(patch: pytest.MonkeyPatch, *, step: int) -> list[int]:
    """Interrupt a training behind a step, as Ctrl-C does, and return the list that has an entry for each step."""
    plain, taken = training_run.Run.advance, list[int]()

    def advance(run: Any, batch: Any) -> None:
        plain(run, batch)
        taken.append(1)
        if len(taken) == step:
            signal.raise_signal(signal.SIGINT)

    patch.setattr(training_run.Run, "advance", advance)
    return taken


def test_answers_of_another_ticket_are_written_again(
    world: World, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_arguments: Any, **_named: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(healing, "heal_merged", killed)
        with pytest.raises(Killed):
            merge_tickets(recipe_of(*folders, heal=4), tmp_path / "both")
    third = ticket(world, "third", rate=0.03)
    recipe = recipe_of(third, folders[1], heal=4)
    expected = without_times(merge_tickets(recipe, tmp_path / "alone"))
    assert without_times(merge_tickets(recipe, tmp_path / "both")) == expected
    sums = [read(tmp_path / name / "delta").record.sha256 for name in ("alone", "both")]
    assert sums[0] == sums[1]


def test_a_healing_that_makes_the_worst_domain_no_better_is_not_used(folders: list[Path], tmp_path: Path) -> None:
    result = merge_tickets(recipe_of(*folders, heal=1, learning_rate=1e-12), tmp_path / "both")
    assert result.healing is not None
    assert not result.is_healed
    assert result.dev == result.unhealed
    shown = run("merge", *map(str, folders), "--heal", "1", "--output-dir", str(tmp_path / "shown"))
    assert "healing" in shown.output


def test_a_merge_touches_nothing_else_in_its_folder(folders: list[Path], tmp_path: Path) -> None:
    mine = tmp_path / "out" / "merging" / "x.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    merge_tickets(recipe_of(*folders), tmp_path / "out")
    assert mine.read_text() == "mine"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "delta", "merge.json", "merging", "recipe.yaml", "sums.json"
    }  # fmt: skip
