"""Blends of two models' weights."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from minigpt.errors import MiniGPTError
from minigpt.healing.blend import blend_weights
from tests.support.tiny import tiny_model


@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_moves_once_by_its_share(tied: bool) -> None:
    model = tiny_model("llama", tied=tied)
    other = deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    blend_weights(model, other, 0.25)
    for name, tensor in model.state_dict().items():
        expected = 0.75 * before[name] + 0.25 * other.state_dict()[name]
        torch.testing.assert_close(tensor, expected)


def test_the_ends_are_the_models_themselves() -> None:
    model, other = tiny_model("llama", seed=0), tiny_model("llama", seed=1)
    same = deepcopy(model)
    blend_weights(same, other, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), model.parameters(), strict=True))
    blend_weights(same, other, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), other.parameters(), strict=True))


def test_other_shapes_are_refused() -> None:
    model, other = tiny_model("llama"), tiny_model("llama", layers=3)
    with pytest.raises(MiniGPTError, match="same shape"):
        blend_weights(model, other, 0.5)
