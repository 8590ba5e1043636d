"""Steps that read their batch in portions train as steps that read it at once."""

from __future__ import annotations

import torch

from minigpt.healing import Recipe, TokenText, train
from tests.support.tiny import tiny_model

TEXT = TokenText(windows=tuple(tuple(range(start, start + 12)) for start in range(3, 40)), bytes=1000)


def trained(portions: int) -> dict[str, torch.Tensor]:
    """Train a tiny model, and return its weights."""
    model = tiny_model("llama")
    recipe = Recipe(steps=3, tokens_per_step=96, window=16, learning_rate=1e-3)
    train(model, TEXT, TEXT, recipe, portions=portions)
    return dict(model.state_dict())


def test_portions_change_rounding_alone() -> None:
    whole, divided = trained(1), trained(4)
    for name, weight in whole.items():
        torch.testing.assert_close(divided[name], weight, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(divided[name], weight) for name, weight in whole.items())
