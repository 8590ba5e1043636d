"""A bound on what other text may cost decides which weights are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.healing import Bound, TokenText, bits_per_byte, run, train
from tests.support.healing import VOCABULARY, Killed, Killer, patterned, recipe
from tests.support.tiny import tiny_model

TEXT, DEV = patterned(80), patterned(12, seed=1)
OTHER = TokenText(windows=tuple((1, *window[:0:-1]) for window in DEV.windows), bytes=DEV.bytes)
STEPS = recipe(steps=12, average=0.0, evaluate_every=1)


def fresh() -> Any:
    return tiny_model(vocab_size=VOCABULARY, layers=2)


def kept(limit: float) -> tuple[int, float, float]:
    model = fresh()
    result = train(model, TEXT, DEV, STEPS, bound=Bound(text=OTHER, limit=limit))
    return result.best_step, dict(result.dev_losses)[result.best_step], bits_per_byte(model, OTHER, precision="fp32")


def test_the_best_weights_within_the_bound_are_kept() -> None:
    free = train(fresh(), TEXT, DEV, STEPS)
    before = bits_per_byte(fresh(), OTHER, precision="fp32")
    best, loss, cost = kept(1e9)
    assert (best, loss) == (free.best_step, min(loss for _, loss in free.dev_losses))
    assert cost > before, "training on one text must hurt the other for this test to mean anything"
    limit = (before + cost) / 2
    step, dev, within = kept(limit)
    assert within <= limit and dev > loss and 0 < step != best


def test_a_bound_out_of_reach_keeps_what_comes_nearest() -> None:
    model = fresh()
    result = train(model, TEXT, DEV, STEPS, bound=Bound(text=OTHER, limit=0.0))
    costs = [kept(1e9)[2], bits_per_byte(fresh(), OTHER, precision="fp32")]
    assert bits_per_byte(model, OTHER, precision="fp32") <= min(costs)
    assert len(result.dev_losses) == 13


def test_weights_without_a_loss_are_never_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, looks = run.bits_per_byte, list[float]()

    def measured(model: Any, text: TokenText, **options: Any) -> float:
        """Give dev losses that end in NaN, and costs of other text that fall."""
        if text is OTHER:
            return 5.0 - 0.1 * len(looks)
        looks.append(plain(model, text, **options) if len(looks) < 2 else float("nan"))
        return looks[-1]

    monkeypatch.setattr(run, "bits_per_byte", measured)
    result = train(fresh(), TEXT, DEV, STEPS, bound=Bound(text=OTHER, limit=1.0))
    assert (result.steps, result.best_step) == (2, 1)


def test_a_killed_run_remembers_how_far_it_was_from_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    bound = Bound(text=OTHER, limit=0.0)
    whole, model, path = fresh(), fresh(), tmp_path / "c.safetensors"
    expected = train(whole, TEXT, DEV, STEPS, bound=bound)
    with pytest.raises(Killed):
        train(model, TEXT, DEV, STEPS, bound=bound, checkpoint=path, reporter=Killer(7))
    model = fresh()
    result = train(model, TEXT, DEV, STEPS, bound=bound, checkpoint=path)
    assert (result.best_step, result.dev_losses) == (expected.best_step, expected.dev_losses)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("other", [None, Bound(text=OTHER, limit=0.5), Bound(text=DEV, limit=0.0)])
def test_a_checkpoint_of_another_bound_is_not_taken_up(
    other: Bound | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    path = tmp_path / "c.safetensors"
    with pytest.raises(Killed):
        bound = Bound(text=OTHER, limit=0.0)
        train(fresh(), TEXT, DEV, STEPS, bound=bound, checkpoint=path, reporter=Killer(7))
    model, whole = fresh(), fresh()
    result = train(model, TEXT, DEV, STEPS, bound=other, checkpoint=path)
    assert result.best_step == train(whole, TEXT, DEV, STEPS, bound=other).best_step
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))
