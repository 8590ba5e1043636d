"""Searching for a learning rate: the best gets a long run, and one that does harm is left for a lower one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from minigpt.healing import Bound, TuneSettings, bits_per_byte, prolong, run, search, train
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


def settings_of(base: Recipe, **changes: Any) -> TuneSettings:
    """Return tuning settings with a recipe's values, which vary nothing but the rate."""
    values = {item.name: getattr(base, item.name) for item in fields(Recipe)}
    return TuneSettings(**{**values, "shorter": (), "longer": 0.0, "muon": (), **changes})


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_the_best_of_three_rates_gets_a_long_run(adapter: str) -> None:
    """Every short run goes to its end, the best rate gets a long one, and the weights are those of the best run."""
    rate = 3e-3 if adapter == "full" else 3e-2
    settings = settings_of(
        recipe(steps=8, average=0.0, adapter=adapter, learning_rate=rate), rates=(1e-6 / rate, 1.0, 1e3 / rate)
    )
    result = search(fresh, TEXT, DEV, settings, seed=3)
    assert [attempt.training.steps for attempt in result.attempts[:2]] == [8, 8]
    result = prolong(result, fresh, TEXT, DEV, settings, steps=24, seed=3)
    rates = [attempt.training.learning_rate for attempt in result.attempts]
    assert rates == pytest.approx([1e-6, rate, 1e3, rate])
    assert result.best == result.attempts[3] and result.best.training.steps == 24
    assert result.training_record().kept_steps == result.training_record().steps == 24
    alone = fresh()
    expected = train(alone, TEXT, DEV, replace(settings.recipe().at(rates[1]), steps=24), seed=3)
    assert essence(result.best.training) == essence(expected)
    assert same(weights(result.model), weights(alone))


def test_a_short_run_that_beats_the_long_one_is_kept_and_says_so() -> None:
    """Text that contradicts the dev text: the longer, the worse; the report states what both runs read."""
    taught = good_start()
    base = recipe(steps=1, average=0.0, learning_rate=1e-2, evaluate_every=1)
    settings = settings_of(base, rates=(1.0, 0.1))
    result = prolong(search(taught, NOISE, DEV, settings, seed=3), taught, NOISE, DEV, settings, steps=6, seed=3)
    short, record = result.attempts[:-1], result.training_record()
    tried = [attempt.training.learning_rate for attempt in short]
    assert tried == pytest.approx([1e-2, *(1e-3 / 2**n for n in range(len(short) - 1))])
    assert len(short) in (3, 4) and short[1].helped and short[1].loss < short[0].loss, "the lowest was the best"
    assert result.attempts[-1].training.steps == 6 and result.best in short
    assert record.tokens == result.attempts[-1].training.tokens and record.steps == 6
    assert record.kept_tokens == result.best.training.tokens < record.tokens and record.kept_steps == 1
    assert f"1 steps on the real text, the best of {len(short) + 1} runs by dev loss" in record.recipe
    assert "the longest had 6 steps on all of the text" in record.recipe
    assert [run.planned_steps for run in record.runs] == [1] * len(short) + [6]
    lowest = min(loss for attempt in result.attempts for _, loss in attempt.training.dev_losses)
    assert bits_per_byte(result.model, DEV, precision="fp32") == pytest.approx(lowest, rel=1e-6)


def test_the_long_run_ends_after_three_looks_without_progress_where_it_may() -> None:
    """From good weights on noise the dev loss never falls: a run that ends early stops three looks after its best."""
    taught = good_start()
    settings = settings_of(recipe(steps=2, average=0.0, learning_rate=1e-2, evaluate_every=2), rates=(1.0,))
    first = search(taught, NOISE, DEV, settings)
    early, whole = (prolong(first, taught, NOISE, DEV, settings, steps=20, ends_early=ends) for ends in (True, False))
    ended = early.attempts[-1].training
    assert ended.steps == ended.best_step + 6 < whole.attempts[-1].training.steps == 20
    assert "was ended then, of 20, because the dev loss did not fall any more" in early.training_record().recipe
    assert "was ended" not in whole.training_record().recipe
    assert early.training_record().runs[-1].planned_steps == 20


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
    settings = settings_of(
        recipe(steps=2, average=0.0, learning_rate=1e3, evaluate_every=1),
        rates=(1.0, 10.0),
        shorter=(0.5,),
        muon=(1.0,),
    )
    result = search(taught, NOISE, DEV, settings)
    assert not any(attempt.helped for attempt in result.attempts) and len(result.attempts) == 5
    longer = prolong(result, taught, NOISE, DEV, settings, steps=2)
    assert longer.attempts[-1].training.learning_rate == 1e3 / 64


def test_a_rate_that_is_right_is_kept() -> None:
    results = [train(fresh(), TEXT, DEV, recipe(steps=12), seed=5, backs_off=backs_off) for backs_off in (False, True)]
    assert essence(results[0]) == essence(results[1]) and results[0].recipe == results[1].recipe
