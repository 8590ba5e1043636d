"""Laws of the training loop: it learns, keeps the best dev step, stops in time and goes on where it was killed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.errors import MiniGPTError
from minigpt.heal import Bound, Teacher, TokenText, bits_per_byte, prolong, run, search, train
from minigpt.heal.recipe import Recipe
from minigpt.types import Training
from tests.healing import VOCABULARY, Killed, Killer, Notes, patterned, recipe
from tests.tiny import tiny_model

TEXT, DEV = patterned(80), patterned(12, seed=1)
NOISE = TokenText(windows=tuple((1, *window[:0:-1]) for window in DEV.windows), bytes=DEV.bytes)


def fresh() -> Any:
    return tiny_model(vocab_size=VOCABULARY, layers=2)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def essence(result: Training) -> tuple[Any, ...]:
    return result.dev_losses, result.best_step, result.steps, result.tokens


def test_training_lowers_the_dev_loss_and_keeps_the_best_step() -> None:
    model = fresh()
    result = train(model, TEXT, DEV, recipe(steps=24))
    losses = dict(result.dev_losses)
    assert list(losses) == [0, 4, 8, 12, 16, 20, 24]
    assert min(losses.values()) < 0.8 * losses[0]
    assert losses[result.best_step] == min(losses.values())
    assert bits_per_byte(model, DEV, precision="fp32") == min(losses.values())
    assert result.steps == 24 and 0 < result.tokens <= 24 * 96
    assert not model.training and all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_kept_weights_are_not_the_last_ones() -> None:
    """Text that contradicts the dev text: training can only hurt, so the weights stay what they were."""
    model = fresh()
    train(model, TEXT, DEV, recipe(steps=24))
    before, found = weights(model), bits_per_byte(model, DEV, precision="fp32")
    result = train(model, NOISE, DEV, recipe(steps=8, average=0.0, learning_rate=1e-2))
    assert result.best_step == 0 and result.steps == 8
    assert result.dev_losses[-1][1] > result.dev_losses[0][1] == found
    assert same(weights(model), before)


def test_patience_stops_a_run() -> None:
    model = fresh()
    train(model, TEXT, DEV, recipe(steps=24))
    result = train(model, NOISE, DEV, recipe(steps=100, average=0.0, learning_rate=1e-2, patience=8, evaluate_every=3))
    assert (result.best_step, result.steps) == (0, 9)


def test_the_dev_loss_is_looked_at_in_the_end_whatever_the_interval() -> None:
    result = train(fresh(), TEXT, DEV, recipe(steps=5, evaluate_every=50))
    assert [step for step, _ in result.dev_losses] == [0, 5]
    assert train(fresh(), TEXT, DEV, recipe(steps=0)).dev_losses[0] == result.dev_losses[0]


def test_runs_repeat_bit_by_bit_and_the_seed_matters() -> None:
    runs = []
    for seed in (1, 1, 2):
        model = fresh()
        runs.append((essence(train(model, TEXT, DEV, recipe(), seed=seed)), weights(model)))
    assert runs[0][0] == runs[1][0] and same(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]


@pytest.mark.parametrize("killed_at", [1, 4, 7, 8])
@pytest.mark.parametrize(
    "changes",
    [{}, {"average": 0.0}, {"adapter": "lora", "rank": 2}, {"distill": 0.5}, {"optimizer": "muon"}],
    ids=["average", "plain", "lora", "distill", "muon"],
)
def test_a_killed_run_goes_on_bit_by_bit(
    changes: dict[str, Any], killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    path, chosen = tmp_path / "work" / "healing.safetensors", recipe(**changes)
    teacher = Teacher(model=tiny_model(vocab_size=VOCABULARY, layers=2, seed=5)) if chosen.distill else None
    model, whole = fresh(), fresh()
    expected = train(whole, TEXT, DEV, chosen, teacher=teacher)
    with pytest.raises(Killed):
        train(model, TEXT, DEV, chosen, teacher=teacher, checkpoint=path, reporter=Killer(killed_at))
    assert path.is_file()
    model, seen = fresh(), Counted()
    result = train(model, TEXT, DEV, chosen, teacher=teacher, checkpoint=path, reporter=seen)
    assert seen.total == chosen.steps - killed_at
    assert essence(result) == essence(expected)
    assert same(weights(model), weights(whole))
    assert not path.exists() and not list(path.parent.iterdir())


class Counted(Notes):
    """A reporter that remembers how long a bar was announced to be."""

    def track(self, items: Any, *, title: str, total: float | None = None) -> Any:
        self.total = total
        yield from items


def test_a_run_killed_after_its_patience_ran_out_stops_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    chosen = recipe(steps=100, average=0.0, learning_rate=1e-1, patience=4, evaluate_every=2)
    expected = train(fresh(), TEXT, DEV, chosen)
    assert expected.steps < 60
    with pytest.raises(Killed):
        train(fresh(), TEXT, DEV, chosen, checkpoint=tmp_path / "c", reporter=Killer(expected.steps))
    assert essence(train(fresh(), TEXT, DEV, chosen, checkpoint=tmp_path / "c")) == essence(expected)


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run killed after five steps."""
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    path = tmp_path / "healing.safetensors"
    with pytest.raises(Killed):
        train(fresh(), TEXT, DEV, recipe(), checkpoint=path, reporter=Killer(5))
    return path


def start_of(path: Path, model: Any, text: TokenText = TEXT, seed: int = 0, **changes: Any) -> float:
    """How many steps are left to a run that is offered the checkpoint."""
    seen = Counted()
    train(model, text, DEV, recipe(**changes), seed=seed, checkpoint=path, reporter=seen)
    return seen.total or 0.0


def test_a_checkpoint_of_this_run_is_taken_up(left: Path) -> None:
    assert start_of(left, fresh()) == 7


@pytest.mark.parametrize("other", ["recipe", "seed", "text", "model", "shape"])
def test_a_checkpoint_of_another_run_is_ignored(other: str, left: Path) -> None:
    changes: dict[str, Any] = {"model": fresh()}
    if other == "recipe":
        changes["learning_rate"] = 1e-3
    elif other == "seed":
        changes["seed"] = 1
    elif other == "text":
        windows = (tuple(reversed(TEXT.windows[0])), *TEXT.windows[1:])
        changes["text"] = TokenText(windows=windows, bytes=TEXT.bytes)
    else:
        changes["model"] = tiny_model(vocab_size=VOCABULARY, layers=2 if other == "model" else 3, seed=1)
    assert start_of(left, changes.pop("model"), **changes) == 12


@pytest.mark.parametrize("damage", ["truncated", "emptied", "garbage", "no metadata", "other metadata"])
def test_a_damaged_checkpoint_is_ignored(damage: str, left: Path) -> None:
    from safetensors.torch import load_file, save_file

    content = left.read_bytes()
    if damage == "truncated":
        left.write_bytes(content[: len(content) // 2])
    elif damage == "emptied":
        left.write_bytes(b"")
    elif damage == "garbage":
        left.write_bytes(b"\xff" * 64)
    else:
        metadata = {"progress": json.dumps({"step": 3})} if damage == "other metadata" else None
        save_file(load_file(left), left, metadata=metadata)
    model, whole = fresh(), fresh()
    expected = train(whole, TEXT, DEV, recipe())
    result = train(model, TEXT, DEV, recipe(), checkpoint=left)
    assert essence(result) == essence(expected) and same(weights(model), weights(whole))


def test_a_checkpoint_with_missing_tensors_changes_nothing(left: Path) -> None:
    """The weights must not be half those of the checkpoint."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(left, framework="pt") as stored:
        metadata = stored.metadata()
        tensors = {name: stored.get_tensor(name) for name in list(stored.keys())[:-3]}
    save_file(tensors, left, metadata=metadata)
    model, whole = fresh(), fresh()
    train(whole, TEXT, DEV, recipe())
    train(model, TEXT, DEV, recipe(), checkpoint=left)
    assert same(weights(model), weights(whole))


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    notes = Notes()
    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    result = train(fresh(), TEXT, DEV, recipe(), checkpoint=tmp_path / "c.safetensors", reporter=notes)
    assert result.steps == 12
    assert notes.notes and "No space left" in notes.notes[0]


def full_disk(*_: Any, **__: Any) -> None:
    from safetensors import SafetensorError

    raise SafetensorError("I/O error: No space left on device")


def test_a_run_that_diverges_stops_and_keeps_its_best_step() -> None:
    blown, chosen = fresh(), recipe(steps=40, average=0.0)
    calls: list[int] = []

    def poison(_module: Any, _args: Any) -> None:
        calls.append(1)
        if len(calls) == 12:
            with torch.no_grad():
                blown.model.norm.weight.fill_(math.nan)

    blown.register_forward_pre_hook(poison)
    result = train(blown, TEXT, DEV, chosen)
    assert result.steps < 40 and all(math.isfinite(loss) for _, loss in result.dev_losses)
    assert all(torch.isfinite(value).all() for value in weights(blown).values())
    assert bits_per_byte(blown, DEV, precision="fp32") == min(loss for _, loss in result.dev_losses)


def test_a_damaged_model_is_refused() -> None:
    model = fresh()
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    with pytest.raises(MiniGPTError, match="no finite probabilities"):
        train(model, TEXT, DEV, recipe())


def test_half_precision_weights_are_trained_in_fp32() -> None:
    model = fresh().bfloat16()
    train(model, TEXT, DEV, recipe(steps=2))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_bf16_arithmetic_learns_like_fp32() -> None:
    """Both go down together; weights stay fp32."""
    ends = []
    for precision in ("fp32", "bf16"):
        model = fresh()
        result = train(model, TEXT, DEV, recipe(steps=16, precision=precision))
        ends.append(result.dev_losses[-1][1])
        assert next(model.parameters()).dtype == torch.float32
    assert ends[0] != ends[1] == pytest.approx(ends[0], rel=0.03)


def test_without_a_teacher_the_report_does_not_speak_of_one() -> None:
    result = train(fresh(), TEXT, DEV, recipe(distill=0.9, steps=1))
    assert "teacher" not in result.recipe


def test_reading_a_recipe_does_not_load_torch() -> None:
    code = "import sys; from minigpt.heal import Recipe; Recipe(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def train_best(
    make: Callable[[], Any], text: TokenText, chosen: Recipe, rates: tuple[float, ...], *, steps: int
) -> tuple[Any, Training, tuple[Training, ...]]:
    """Short runs and a long one, as a control is tuned."""
    found = search(make, text, DEV, chosen, rates, seed=3)
    found = prolong(found, make, text, DEV, chosen, steps=steps, seed=3)
    return found.model, found.told(), found.tried


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_the_best_of_three_rates_gets_a_long_run(adapter: str) -> None:
    """The short runs stop early, the best rate gets a long one, and the weights are those of the best of all runs."""
    chosen = recipe(steps=8, patience=4, average=0.0, adapter=adapter)
    rates = (1e-6, 3e-3 if adapter == "full" else 3e-2, 1e3)
    model, result, tried = train_best(fresh, TEXT, chosen, rates, steps=24)
    best = [min(loss for _, loss in each.dev_losses) for each in tried]
    assert [each.learning_rate for each in tried] == [*rates, rates[1]]
    assert best.index(min(best)) == 3 and result == tried[3] and result.steps == 24
    assert tried[2].steps <= 4, "a rate that blows up is left at once"
    alone = fresh()
    expected = train(alone, TEXT, DEV, replace(chosen.at(rates[1]), steps=24, patience=0), seed=3)
    assert essence(result) == essence(expected)
    assert same(weights(model), weights(alone))


def test_a_short_run_that_beats_the_long_one_is_kept_and_says_so() -> None:
    """Text that contradicts the dev text: the longer, the worse; the long run's tokens count, since it was tried."""
    learnt = fresh()
    train(learnt, TEXT, DEV, recipe(steps=24))
    start = weights(learnt)

    def taught() -> Any:
        model = fresh()
        model.load_state_dict(start)
        return model

    chosen = recipe(steps=1, average=0.0, learning_rate=1e-4, evaluate_every=1)
    model, _, tried = train_best(taught, TEXT, chosen, (1e-4, 1e-5), steps=6)
    losses = [min(loss for _, loss in each.dev_losses) for each in tried]
    assert bits_per_byte(model, DEV, precision="fp32") == pytest.approx(min(losses), rel=1e-6)
    rates = (1e-2, 1e-3)
    noisy, kept, every = train_best(taught, NOISE, chosen, rates, steps=6)
    short = [each for each in every if each.steps == 1]
    assert [each.learning_rate for each in short] == [1e-2, *(1e-3 / 4**n for n in range(len(short) - 1))]
    assert all(each.best_step == 0 for each in short[:-1]), "lower rates are tried only where none helped"
    assert len(every) == len(short) + 1 and every[-1].steps == 6 and kept.tokens == every[-1].tokens
    assert "1 steps, which beat 6 on dev text" in kept.recipe and kept.steps == 6
    lowest = min(loss for each in every for _, loss in each.dev_losses)
    assert bits_per_byte(noisy, DEV, precision="fp32") == pytest.approx(lowest, rel=1e-6)


def test_a_short_run_that_patience_ended_leaves_the_long_one_to_do() -> None:
    """The recipe allows as many steps as the long run has, but no run has read as much text yet."""
    chosen = recipe(steps=12, average=0.0, evaluate_every=1, patience=2)
    _, kept, tried = train_best(fresh, NOISE, chosen, (1e-1,), steps=10)
    assert all(each.steps < 10 for each in tried[:-1]) and tried[-1].steps == 10
    assert kept.steps == 10 and kept.tokens == tried[-1].tokens


def test_a_rate_that_is_too_high_is_left_for_a_lower_one() -> None:
    """From weights that are good, at a rate that ruins them: the run starts over from them, and the report says so."""
    learnt, notes = fresh(), Notes()
    train(learnt, TEXT, DEV, recipe(steps=24))
    start = weights(learnt)
    chosen = recipe(steps=8, learning_rate=1.0, average=0.0)
    ruined = fresh()
    ruined.load_state_dict(start)
    alone = train(ruined, TEXT, DEV, chosen, seed=5)
    assert alone.best_step == 0 and alone.dev_losses[-1][1] > 1.1 * alone.dev_losses[0][1]
    result = train(learnt, TEXT, DEV, chosen, seed=5, backs_off=True, reporter=notes)
    assert result.learning_rate < 1.0 and result.dev_losses[0] == alone.dev_losses[0]
    assert f"at {result.learning_rate:g}" in notes.notes[-1] and "started over from 1" in result.recipe
    assert len(notes.notes) == round(math.log(1.0 / result.learning_rate, 4)) <= 3
    other = fresh()
    other.load_state_dict(start)
    expected = train(other, TEXT, DEV, chosen.at(result.learning_rate), seed=5)
    assert essence(result) == essence(expected) and same(weights(learnt), weights(other))


def test_a_run_that_backed_off_resumes_at_the_rate_it_had_come_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    learnt = fresh()
    train(learnt, TEXT, DEV, recipe(steps=24))
    start, path = weights(learnt), tmp_path / "run.safetensors"
    chosen = recipe(steps=40, learning_rate=0.3, average=0.0)

    def again(reporter: Any) -> Training:
        model = fresh()
        model.load_state_dict(start)
        return train(model, TEXT, DEV, chosen, seed=5, backs_off=True, checkpoint=path, reporter=reporter)

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
    """Whether a rate does harm is told by the dev loss, whatever becomes of the text that is bounded."""
    learnt, notes = fresh(), Notes()
    train(learnt, TEXT, DEV, recipe(steps=24))
    never = Bound(text=NOISE, limit=-1.0)
    result = train(learnt, TEXT, DEV, recipe(steps=8, learning_rate=1.0), backs_off=True, bound=never, reporter=notes)
    assert result.learning_rate < 1.0 and "starting over" in notes.notes[0]
    hopeless = recipe(steps=4, learning_rate=1e4, average=0.0)
    result = train(learnt, TEXT, DEV, hopeless, backs_off=True, reporter=notes)
    assert result.best_step == 0 and "gained nothing" in notes.notes[-1]


def test_where_no_rate_helps_the_long_run_takes_the_lowest() -> None:
    learnt = fresh()
    train(learnt, TEXT, DEV, recipe(steps=24))
    start = weights(learnt)

    def taught() -> Any:
        model = fresh()
        model.load_state_dict(start)
        return model

    chosen = recipe(steps=2, average=0.0, evaluate_every=1)
    found = search(taught, NOISE, DEV, chosen, (1e3, 1e4))
    assert not any(each.best_step for each in found.tried) and len(found.tried) == 5
    assert prolong(found, taught, NOISE, DEV, chosen, steps=2).tried[-1].learning_rate == 1e3 / 64


def test_a_rate_that_is_right_is_kept() -> None:
    results = [train(fresh(), TEXT, DEV, recipe(steps=12), seed=5, backs_off=backs_off) for backs_off in (False, True)]
    assert essence(results[0]) == essence(results[1]) and results[0].recipe == results[1].recipe
