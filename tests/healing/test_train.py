"""Laws of the training loop: it learns, keeps the best dev step, stops in time and goes on where it was killed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.errors import MiniGPTError
from minigpt.healing import Teacher, TokenText, bits_per_byte, run, train
from minigpt.results import Training
from tests.support.healing import VOCABULARY, Killed, Killer, Notes, patterned, recipe
from tests.support.tiny import tiny_model

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
    before, loss = weights(model), bits_per_byte(model, DEV, precision="fp32")
    result = train(model, NOISE, DEV, recipe(steps=8, average=0.0, learning_rate=1e-2))
    assert result.best_step == 0 and result.steps == 8
    assert result.dev_losses[-1][1] > result.dev_losses[0][1] == loss
    assert same(weights(model), before)


def test_patience_stops_a_run() -> None:
    model = fresh()
    train(model, TEXT, DEV, recipe(steps=24))
    result = train(model, NOISE, DEV, recipe(steps=100, average=0.0, learning_rate=1e-2, patience=8, evaluate_every=3))
    assert (result.best_step, result.steps) == (0, 9)


def test_a_watch_sees_the_model_after_each_evaluation_behind_the_warm_up_and_ends_the_run() -> None:
    model, seen = fresh(), list[dict[str, torch.Tensor]]()

    def watch(watched: Any) -> bool:
        seen.append(weights(watched))
        return len(seen) == 2

    start = weights(model)
    result = train(model, TEXT, DEV, recipe(steps=24), watch=lambda: watch)
    assert result.steps == 8 and [step for step, _ in result.dev_losses] == [0, 4, 8]
    assert len(seen) == 2 and not same(seen[0], start) and not same(seen[0], seen[1])
    seen.clear()
    assert train(fresh(), TEXT, DEV, recipe(steps=24, warmup=8), watch=lambda: watch).steps == 16
    whole = train(fresh(), TEXT, DEV, recipe(steps=24), watch=lambda: lambda _: False)
    assert essence(whole) == essence(train(fresh(), TEXT, DEV, recipe(steps=24)))


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
    path, settings = tmp_path / "work" / "healing.safetensors", recipe(**changes)
    teacher = Teacher(model=tiny_model(vocab_size=VOCABULARY, layers=2, seed=5)) if settings.distill else None
    model, whole = fresh(), fresh()
    expected = train(whole, TEXT, DEV, settings, teacher=teacher)
    with pytest.raises(Killed):
        train(model, TEXT, DEV, settings, teacher=teacher, checkpoint=path, reporter=Killer(killed_at))
    assert path.is_file()
    model, seen = fresh(), Counted()
    result = train(model, TEXT, DEV, settings, teacher=teacher, checkpoint=path, reporter=seen)
    assert seen.total == settings.steps - killed_at
    assert essence(result) == essence(expected)
    assert same(weights(model), weights(whole))
    assert not path.exists() and not list(path.parent.iterdir())


class Counted(Notes):
    """A reporter that remembers the announced length of the progress bar."""

    def track(self, items: Any, *, title: str, total: float | None = None) -> Any:
        self.total = total
        yield from items


def test_a_run_killed_after_its_patience_ran_out_stops_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    settings = recipe(steps=100, average=0.0, learning_rate=1e-1, patience=4, evaluate_every=2)
    expected = train(fresh(), TEXT, DEV, settings)
    assert expected.steps < 60
    with pytest.raises(Killed):
        train(fresh(), TEXT, DEV, settings, checkpoint=tmp_path / "c", reporter=Killer(expected.steps))
    assert essence(train(fresh(), TEXT, DEV, settings, checkpoint=tmp_path / "c")) == essence(expected)


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run killed after five steps."""
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    path = tmp_path / "healing.safetensors"
    with pytest.raises(Killed):
        train(fresh(), TEXT, DEV, recipe(), checkpoint=path, reporter=Killer(5))
    return path


def start_of(path: Path, model: Any, text: TokenText = TEXT, seed: int = 0, **changes: Any) -> float:
    """Return how many steps are left to a run that is offered the checkpoint."""
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
    notes = Notes()
    result = train(model, TEXT, DEV, recipe(), checkpoint=left, reporter=notes)
    assert essence(result) == essence(expected) and same(weights(model), weights(whole))
    assert any(str(left) in note and "damaged" in note for note in notes.notes)
    assert list(left.parent.glob(f"{left.name}.damaged-*"))


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
    blown, settings = fresh(), recipe(steps=40, average=0.0)
    calls: list[int] = []

    def poison(_module: Any, _args: Any) -> None:
        calls.append(1)
        if len(calls) == 12:
            with torch.no_grad():
                blown.model.norm.weight.fill_(math.nan)

    blown.register_forward_pre_hook(poison)
    notes = Notes()
    result = train(blown, TEXT, DEV, settings, reporter=notes)
    assert any("no longer a number" in note and f"step {result.best_step}" in note for note in notes.notes)
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
    code = "import sys; from minigpt.healing import Recipe; Recipe(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Details(Notes):
    """A reporter that remembers the details of its loops."""

    def __init__(self) -> None:
        super().__init__()
        self.details: list[str] = []

    def detail(self, message: str) -> None:
        self.details.append(message)


def test_every_look_at_the_dev_text_is_told_beside_the_first() -> None:
    reporter = Details()
    result = train(fresh(), TEXT, DEV, recipe(steps=10, evaluate_every=4), reporter=reporter)
    (_, first), *later = result.dev_losses
    assert len(later) == 3
    assert reporter.details == [f"dev {first:.3f}", *(f"dev {first:.3f} -> {loss:.3f}" for _, loss in later)]
