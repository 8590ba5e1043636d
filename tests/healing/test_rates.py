"""Searching for a learning rate: the best of three gets a long run, and one that does harm is left for a lower one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minigpt.healing import Bound, TokenText, bits_per_byte, prolong, run, search, train
from minigpt.healing.recipe import Recipe
from minigpt.results import Training
from tests.healing.test_train import DEV, NOISE, TEXT, essence, fresh, same, weights
from tests.support.healing import Killed, Killer, Notes, recipe


def good_start() -> Callable[[], Any]:
    """Return a function that makes models with the same weights, which have learnt the text."""
    learnt = fresh()
    train(learnt, TEXT, DEV, recipe(steps=24))
    start = weights(learnt)

    def taught() -> Any:
        model = fresh()
        model.load_state_dict(start)
        return model

    return taught


def train_best(
    make: Callable[[], Any], text: TokenText, settings: Recipe, rates: tuple[float, ...], *, steps: int
) -> tuple[Any, Training, tuple[Training, ...]]:
    """Run a search and a long run, as for a tuned parent."""
    result = search(make, text, DEV, settings, rates, seed=3)
    result = prolong(result, make, text, DEV, settings, steps=steps, seed=3)
    return result.model, result.training_record(), result.tried


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_the_best_of_three_rates_gets_a_long_run(adapter: str) -> None:
    """The short runs stop early, the best rate gets a long one, and the weights are those of the best of all runs."""
    settings = recipe(steps=8, patience=4, average=0.0, adapter=adapter)
    rates = (1e-6, 3e-3 if adapter == "full" else 3e-2, 1e3)
    model, result, tried = train_best(fresh, TEXT, settings, rates, steps=24)
    best = [min(loss for _, loss in training.dev_losses) for training in tried]
    assert [training.learning_rate for training in tried] == [*rates, rates[1]]
    assert best.index(min(best)) == 3 and result == tried[3] and result.steps == 24
    assert tried[2].steps <= 4, "a rate that blows up is left at once"
    alone = fresh()
    expected = train(alone, TEXT, DEV, replace(settings.at(rates[1]), steps=24, patience=0), seed=3)
    assert essence(result) == essence(expected)
    assert same(weights(model), weights(alone))


def test_a_short_run_that_beats_the_long_one_is_kept_and_says_so() -> None:
    """Text that contradicts the dev text: the longer, the worse; the long run's tokens count, since it was tried."""
    taught = good_start()
    settings = recipe(steps=1, average=0.0, learning_rate=1e-4, evaluate_every=1)
    model, _, tried = train_best(taught, TEXT, settings, (1e-4, 1e-5), steps=6)
    losses = [min(loss for _, loss in training.dev_losses) for training in tried]
    assert bits_per_byte(model, DEV, precision="fp32") == pytest.approx(min(losses), rel=1e-6)
    rates = (1e-2, 1e-3)
    noisy, kept, every = train_best(taught, NOISE, settings, rates, steps=6)
    short = [training for training in every if training.steps == 1]
    assert [training.learning_rate for training in short] == [1e-2, *(1e-3 / 4**n for n in range(len(short) - 1))]
    assert all(training.best_step == 0 for training in short[:-1]), "lower rates are tried only where none helped"
    assert len(every) == len(short) + 1 and every[-1].steps == 6 and kept.tokens == every[-1].tokens
    assert "1 steps, which beat 6 on dev text" in kept.recipe and kept.steps == 6
    lowest = min(loss for training in every for _, loss in training.dev_losses)
    assert bits_per_byte(noisy, DEV, precision="fp32") == pytest.approx(lowest, rel=1e-6)


def test_a_short_run_that_patience_ended_leaves_the_long_one_to_do() -> None:
    """The recipe allows as many steps as the long run has, but no run has read as much text yet."""
    settings = recipe(steps=12, average=0.0, evaluate_every=1, patience=2)
    _, kept, tried = train_best(fresh, NOISE, settings, (1e-1,), steps=10)
    assert all(training.steps < 10 for training in tried[:-1]) and tried[-1].steps == 10
    assert kept.steps == 10 and kept.tokens == tried[-1].tokens


def test_a_rate_that_is_too_high_is_left_for_a_lower_one() -> None:
    """From weights that are good, at a rate that ruins them: the run starts over from them, and the report says so."""
    learnt, notes = fresh(), Notes()
    train(learnt, TEXT, DEV, recipe(steps=24))
    start = weights(learnt)
    settings = recipe(steps=8, learning_rate=1.0, average=0.0)
    ruined = fresh()
    ruined.load_state_dict(start)
    alone = train(ruined, TEXT, DEV, settings, seed=5)
    assert alone.best_step == 0 and alone.dev_losses[-1][1] > 1.1 * alone.dev_losses[0][1]
    result = train(learnt, TEXT, DEV, settings, seed=5, backs_off=True, reporter=notes)
    assert result.learning_rate < 1.0 and result.dev_losses[0] == alone.dev_losses[0]
    assert f"at {result.learning_rate:g}" in notes.notes[-1] and "started over from 1" in result.recipe
    assert len(notes.notes) == round(math.log(1.0 / result.learning_rate, 4)) <= 3
    other = fresh()
    other.load_state_dict(start)
    expected = train(other, TEXT, DEV, settings.at(result.learning_rate), seed=5)
    assert essence(result) == essence(expected) and same(weights(learnt), weights(other))


def test_a_run_that_backed_off_resumes_at_the_rate_it_had_come_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    learnt = fresh()
    train(learnt, TEXT, DEV, recipe(steps=24))
    start, path = weights(learnt), tmp_path / "run.safetensors"
    settings = recipe(steps=40, learning_rate=0.3, average=0.0)

    def again(reporter: Any) -> Training:
        model = fresh()
        model.load_state_dict(start)
        return train(model, TEXT, DEV, settings, seed=5, backs_off=True, checkpoint=path, reporter=reporter)

    whole = Notes()
    expected = again(whole)
    assert whole.notes and not list(tmp_path.iterdir())
    with pytest.raises(Killed):
        again(Killer(13))
    assert path.with_suffix(".rate.json").exists()
    notes = Notes()
    resumed = again(notes)
    assert len(notes.notes) < len(whole.notes) and essence(resumed) == essence(expected)
    assert resumed.learning_rate == expected.learning_rate and not list(tmp_path.iterdir())


def test_a_bound_hides_no_harm_and_a_run_that_gains_nothing_says_so() -> None:
    """The dev loss decides whether a rate does harm, whatever happens to the bounded text."""
    learnt, notes = fresh(), Notes()
    train(learnt, TEXT, DEV, recipe(steps=24))
    never = Bound(text=NOISE, limit=-1.0)
    result = train(learnt, TEXT, DEV, recipe(steps=8, learning_rate=1.0), backs_off=True, bound=never, reporter=notes)
    assert result.learning_rate < 1.0 and "starting over" in notes.notes[0]
    hopeless = recipe(steps=4, learning_rate=1e4, average=0.0)
    result = train(learnt, TEXT, DEV, hopeless, backs_off=True, reporter=notes)
    assert result.best_step == 0 and "gained nothing" in notes.notes[-1]


def test_where_no_rate_helps_the_long_run_takes_the_lowest() -> None:
    taught = good_start()
    settings = recipe(steps=2, average=0.0, evaluate_every=1)
    result = search(taught, NOISE, DEV, settings, (1e3, 1e4))
    assert not any(training.best_step for training in result.tried) and len(result.tried) == 5
    assert prolong(result, taught, NOISE, DEV, settings, steps=2).tried[-1].learning_rate == 1e3 / 64


def test_a_rate_that_is_right_is_kept() -> None:
    results = [train(fresh(), TEXT, DEV, recipe(steps=12), seed=5, backs_off=backs_off) for backs_off in (False, True)]
    assert essence(results[0]) == essence(results[1]) and results[0].recipe == results[1].recipe
