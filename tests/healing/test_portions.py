"""Steps that read their batch in portions train as steps that read it at once."""

from __future__ import annotations

import torch

from minigpt.healing import Recipe, TokenText, train
from tests.support.tiny import tiny_model

TEXT = TokenText(windows=tuple(tuple(range(start, start + 12)) for start in range(3, 40)), bytes=1000)


def trained(portions: int) -> dict[str, torch.Tensor]:
    """Train a tiny model, and return its weights."""
    model = tiny_model("llama")
    recipe = Recipe(steps=3, tokens_per_step=96, window=16, learning_rate=1e-3, precision="fp32")
    train(model, TEXT, TEXT, recipe, portions=portions)
    return dict(model.state_dict())


def test_portions_change_rounding_alone() -> None:
    start, whole, divided = (dict(tiny_model("llama").state_dict()), trained(1), trained(4))
    changes = torch.cat([(whole[name] - start[name]).flatten() for name in start])
    differences = torch.cat([(whole[name] - divided[name]).flatten() for name in start])
    # AdamW divides by the size of a gradient, which magnifies the rounding of those that are nearly zero.
    assert 0 < differences.norm() < 0.01 * changes.norm()
