"""Masked training: weights outside of the masks keep their values on every path, and a killed run resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from minigpt.errors import ConfigError
from minigpt.healing import run, train
from minigpt.healing.masks import Mask
from tests.healing.test_train import DEV, TEXT, fresh, same, weights
from tests.support.healing import Killed, Killer, recipe

NAMES = ("model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight")


def masks_of(model: Any) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    known = dict(model.named_parameters())
    return {name: torch.rand(known[name].shape, generator=generator) < 0.5 for name in NAMES}


def rest_free(masks: dict[str, torch.Tensor]) -> Mask:
    """A mask that leaves the parameters that it does not name free."""
    return Mask(free=masks, trains_others=True)


@pytest.mark.parametrize("pruned", [True, False], ids=["zeros", "parent"])
@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon"}, {"weight_decay": 0.1}, {"average": 0.0}], ids=str)
def test_frozen_weights_stay_bit_by_bit_and_the_others_learn(changes: dict[str, Any], pruned: bool) -> None:
    model = fresh()
    masks = masks_of(model)
    if pruned:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in masks:
                    parameter.mul_(masks[name])
    before = weights(model)
    result = train(model, TEXT, DEV, recipe(**changes), mask=rest_free(masks))
    after = weights(model)
    assert result.best_step > 0
    for name, mask in masks.items():
        assert torch.equal(after[name][~mask], before[name][~mask])
        assert (after[name][mask] != before[name][mask]).float().mean() > 0.9


def test_a_killed_masked_run_goes_on_and_another_mask_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CHECKPOINT_SECONDS", 0.0)
    whole = fresh()
    masks = masks_of(whole)
    expected = train(whole, TEXT, DEV, recipe(), mask=rest_free(masks))
    path = tmp_path / "healing.safetensors"
    with pytest.raises(Killed):
        train(fresh(), TEXT, DEV, recipe(), mask=rest_free(masks), checkpoint=path, reporter=Killer(7))
    resumed = fresh()
    result = train(resumed, TEXT, DEV, recipe(), mask=rest_free(masks), checkpoint=path)
    assert result.dev_losses == expected.dev_losses and same(weights(resumed), weights(whole))
    with pytest.raises(Killed):
        train(fresh(), TEXT, DEV, recipe(), mask=rest_free(masks), checkpoint=path, reporter=Killer(7))
    other, alone = fresh(), fresh()
    flipped = {name: ~mask for name, mask in masks.items()}
    train(other, TEXT, DEV, recipe(), mask=rest_free(flipped), checkpoint=path)
    train(alone, TEXT, DEV, recipe(), mask=rest_free(flipped))
    assert same(weights(other), weights(alone))


def test_a_mask_that_fits_no_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="which the model does not have"):
        train(fresh(), TEXT, DEV, recipe(), mask=rest_free({"nothing": torch.ones(2, dtype=torch.bool)}))
    with pytest.raises(ConfigError, match="adapter"):
        train(fresh(), TEXT, DEV, recipe(adapter="lora", rank=2), mask=rest_free(masks_of(fresh())))
