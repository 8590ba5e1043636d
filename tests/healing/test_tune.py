"""The search for the tuned parent: the order of its runs, and what survives a kill between two of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minigpt.errors import ConfigError
from minigpt.healing import schedules, search
from minigpt.healing.ledger import Entries, Ledger
from minigpt.healing.recipe import Recipe
from minigpt.healing.tune import Attempt, TuneSettings, long_run, next_recipe
from minigpt.results import Training
from tests.healing.test_rates import settings_of
from tests.healing.test_train import DEV, TEXT, essence, fresh, same, weights
from tests.support.healing import Notes, recipe

SETTINGS = TuneSettings(steps=200, warmup=30, learning_rate=2e-4, shorter=(0.5, 0.25))


def attempt(settings: Recipe, loss: float, best_step: int = 1) -> Attempt:
    """Return a run that ended with a dev loss; it began with 1."""
    training = Training(
        tokens=settings.steps,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        best_step=best_step,
        seconds=1.0,
        recipe="",
        dev_losses=((0, 1.0), (settings.steps, loss)),
    )
    return Attempt(recipe=settings, training=training)


def runs(settings: TuneSettings, loss: Callable[[Recipe], float]) -> list[tuple[float, int, str]]:
    """Run a whole search, whose dev losses are a function of the recipe."""
    attempts: list[Attempt] = []
    while (following := next_recipe(settings, attempts)) is not None:
        assert following.patience == 0 and len(attempts) < 20
        value = loss(following)
        attempts.append(attempt(following, value, best_step=following.steps if value < 1 else 0))
    return [(one.recipe.learning_rate, one.recipe.steps, one.recipe.optimizer) for one in attempts]


def test_a_shorter_run_that_is_best_is_not_followed_by_a_longer_one() -> None:
    order = runs(SETTINGS, lambda one: 0.5 + abs(one.learning_rate - 2e-4) + one.steps * 1e-6)
    assert order == [
        (1e-4, 200, "adamw"),
        (2e-4, 200, "adamw"),
        (4e-4, 200, "adamw"),
        (2e-4, 100, "adamw"),
        (2e-4, 50, "adamw"),
        (1e-4, 50, "muon"),
    ]


def test_where_all_steps_are_best_twice_as_many_are_tried_once() -> None:
    order = runs(SETTINGS, lambda one: 0.9 - one.learning_rate - one.steps * 1e-4)
    assert order[3:] == [(4e-4, 100, "adamw"), (4e-4, 50, "adamw"), (4e-4, 400, "adamw"), (2e-4, 400, "muon")]


def test_a_good_muon_run_changes_no_earlier_choice() -> None:
    order = runs(SETTINGS, lambda one: 0.1 if one.optimizer == "muon" else 0.9 - one.learning_rate + one.steps * 1e-6)
    assert len(order) == len(set(order)) == 6


def test_where_no_rate_helps_lower_ones_are_all_that_follows() -> None:
    order = runs(SETTINGS, lambda one: 1.0)
    assert [rate for rate, _, _ in order] == pytest.approx([1e-4, 2e-4, 4e-4, 1e-4 / 4, 1e-4 / 16, 1e-4 / 64])
    helps = runs(SETTINGS, lambda one: 0.9 if one.learning_rate < 5e-5 else 1.0)
    assert [steps for _, steps, _ in helps] == [200, 200, 200, 200, 100, 50, 400, 200]
    assert {rate for rate, _, optimizer in helps[3:] if optimizer == "adamw"} == {1e-4 / 4}


def test_the_lowest_rate_is_halved_while_it_is_the_best() -> None:
    """The bottom of the curve may lie below the rates of the settings; two more are tried, and then it is enough."""

    def rates(best: float, settings: TuneSettings = SETTINGS) -> list[float]:
        order = runs(settings, lambda one: 0.5 + abs(one.learning_rate - best) + one.steps * 1e-6)
        return [rate for rate, steps, optimizer in order if steps == settings.steps and optimizer == "adamw"]

    assert rates(2e-4) == pytest.approx([1e-4, 2e-4, 4e-4])
    assert rates(9e-5) == pytest.approx([1e-4, 2e-4, 4e-4, 5e-5])
    assert rates(5e-5) == pytest.approx([1e-4, 2e-4, 4e-4, 5e-5, 2.5e-5])
    assert rates(1e-6) == pytest.approx([1e-4, 2e-4, 4e-4, 5e-5, 2.5e-5])
    assert rates(1e-6, TuneSettings(steps=200, learning_rate=2e-4, rates=(1.0,))) == pytest.approx([2e-4])
    assert rates(2e-4, TuneSettings(steps=200, learning_rate=2e-4, rates=(1.0, 1.0)))[0] == pytest.approx(2e-4)


def test_a_short_run_warms_up_in_a_tenth_of_its_steps() -> None:
    attempts = [attempt(SETTINGS.recipe().at(factor * 2e-4), 0.5) for factor in SETTINGS.rates]
    following = next_recipe(SETTINGS, attempts)
    assert following is not None and (following.steps, following.warmup) == (100, 10)
    assert long_run(SETTINGS, attempts, 3200, ends_early=True).warmup == 30


def test_the_long_run_looks_four_dozen_times_and_gives_up_after_three() -> None:
    attempts = [attempt(SETTINGS.recipe(), 0.5)]
    recipe_of_long = long_run(SETTINGS, attempts, 3200, ends_early=True)
    assert (recipe_of_long.evaluate_every, recipe_of_long.patience) == (66, 198)
    assert long_run(SETTINGS, attempts, 1600, ends_early=False).patience == 0
    assert long_run(SETTINGS, attempts, 160, ends_early=True).evaluate_every == SETTINGS.evaluate_every


@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_adapters_are_never_trained_by_muon(adapter: Any) -> None:
    settings = TuneSettings(steps=20, adapter=adapter)
    assert all(optimizer == "adamw" for _, _, optimizer in runs(settings, lambda one: 0.5 + one.steps * 1e-6))


@pytest.mark.parametrize(
    "changes",
    [
        {"rates": ()},
        {"rates": (0.0,)},
        {"shorter": (1.0,)},
        {"longer": 0.5},
        {"muon": (-1.0,)},
        {"looks": -1},
        {"seeds": 0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(ConfigError, match=f"{name} of tuning must be"):
        TuneSettings(**changes)


def test_a_search_that_is_killed_between_runs_goes_on_and_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished runs are not repeated, whichever of them was the best so far."""
    settings = settings_of(recipe(steps=4, average=0.0, learning_rate=3e-3), rates=(0.1, 1.0, 0.5), shorter=(0.5,))
    whole = search(fresh, TEXT, DEV, settings, seed=3)
    ledger, trained, real = Ledger(folder=tmp_path / "runs", key="k"), 0, schedules.train

    def killed(*arguments: Any, **options: Any) -> Training:
        nonlocal trained
        if trained == stop:
            raise KeyboardInterrupt
        trained += 1
        return real(*arguments, **options)

    monkeypatch.setattr(schedules, "train", killed)
    for stop in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            search(fresh, TEXT, DEV, settings, seed=3, ledger=ledger)
        assert len(ledger.read().attempts) == stop
    stop = 100
    again = search(fresh, TEXT, DEV, settings, seed=3, ledger=ledger)
    assert trained == len(whole.attempts) == 4
    assert [essence(one.training) for one in again.attempts] == [essence(one.training) for one in whole.attempts]
    assert same(weights(again.model), weights(whole.model))
    assert len(list((tmp_path / "runs").glob("*.safetensors"))) == 1, "only the best weights are kept"
    search(fresh, TEXT, DEV, settings, seed=3, ledger=ledger)
    assert trained == 4
    ledger.remove()
    assert not list(tmp_path.iterdir())


def test_a_ledger_of_other_inputs_or_without_its_weights_counts_as_empty(tmp_path: Path) -> None:
    ledger = Ledger(folder=tmp_path / "runs", key="k")
    entries = ledger.add(ledger.read(), attempt(SETTINGS.recipe(), 0.5), fresh())
    assert ledger.read() == entries and entries.weights
    assert Ledger(folder=ledger.folder, key="other").read() == Entries(key="other")
    (ledger.folder / entries.weights).unlink()
    assert ledger.read() == Entries(key="k")


@pytest.mark.parametrize("damage", ["list", "weights"])
def test_a_damaged_ledger_is_moved_aside_and_named(damage: str, tmp_path: Path) -> None:
    notes = Notes()
    ledger = Ledger(folder=tmp_path / "runs", key="k", reporter=notes)
    entries = ledger.add(ledger.read(), attempt(SETTINGS.recipe(), 0.5), fresh())
    path = ledger.folder / (entries.weights if damage == "weights" else "runs.json")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert ledger.read() == Entries(key="k")
    (note,) = notes.notes
    assert str(ledger.folder) in note and "made again" in note
    assert list(tmp_path.glob("runs.damaged-*")) and not ledger.folder.exists()
