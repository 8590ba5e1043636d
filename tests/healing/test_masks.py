from __future__ import annotations

from typing import Any

import pytest
import torch

from minigpt.errors import ConfigError
from minigpt.healing import Mask, train
from tests.support.healing import VOCABULARY, Killed, Killer, patterned, recipe
from tests.support.tiny import tiny_model


def half_mask(model: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(p.shape, generator=generator) < 0.5 for name, p in model.named_parameters()}


@pytest.mark.parametrize("changes", [{}, {"weight_decay": 0.1}, {"optimizer": "muon"}, {"average": 0.0}])
def test_weights_outside_of_the_mask_stay_equal_to_the_bit(changes: dict[str, Any]) -> None:
    model = tiny_model(vocab_size=VOCABULARY)
    mask = half_mask(model)
    del mask["model.norm.weight"]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    result = train(model, patterned(40), patterned(8, seed=1), recipe(**changes), mask=Mask(free=mask))
    assert result.best_step > 0
    for name, parameter in model.named_parameters():
        free = mask.get(name, torch.zeros(parameter.shape, dtype=torch.bool))
        same = parameter == before[name]
        assert same[~free].all()
        if free.any() and "embed" not in name:
            assert not same[free].all()


def test_a_full_mask_trains_as_no_mask_does() -> None:
    models = [tiny_model(vocab_size=VOCABULARY) for _ in range(2)]
    everything = Mask(free={name: torch.ones_like(p, dtype=torch.bool) for name, p in models[0].named_parameters()})
    for model, mask in zip(models, (None, everything), strict=True):
        train(model, patterned(40), patterned(8, seed=1), recipe(), mask=mask)
    for first, second in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(first, second)


def test_a_killed_run_resumes_with_its_mask_and_not_with_another(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("minigpt.healing.run.CHECKPOINT_SECONDS", 0.0)
    file = tmp_path / "run.safetensors"

    def trained(mask_seed: int, **options: Any) -> Any:
        model = tiny_model(vocab_size=VOCABULARY)
        mask = Mask(free=half_mask(model, mask_seed))
        train(model, patterned(40), patterned(8, seed=1), recipe(), mask=mask, **options)
        return model

    whole, other = trained(0), trained(1)
    for seed, expected in ((0, whole), (1, other)):
        with pytest.raises(Killed):
            trained(0, checkpoint=file, reporter=Killer(7))
        assert file.exists()
        for first, second in zip(trained(seed, checkpoint=file).parameters(), expected.parameters(), strict=True):
            assert torch.equal(first, second)


def test_masks_that_do_not_fit_are_refused() -> None:
    model = tiny_model(vocab_size=VOCABULARY)
    text, dev = patterned(40), patterned(8, seed=1)
    with pytest.raises(ConfigError, match="names other, which the model does not have"):
        train(model, text, dev, recipe(), mask=Mask(free={"other": torch.ones(1, dtype=torch.bool)}))
    with pytest.raises(ConfigError, match="has the shape"):
        train(model, text, dev, recipe(), mask=Mask(free={"model.norm.weight": torch.ones(3, dtype=torch.bool)}))
    with pytest.raises(ConfigError, match="adapter"):
        train(model, text, dev, recipe(adapter="lora"), mask=Mask(free={}))
