"""Generating never chooses a token by logits that are not numbers, in transformers' loop and in that of runtimes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from minigpt.errors import MiniGPTError
from minigpt.models.generate import Sampling, check_logits, generate, generate_tokens
from tests.support.tiny import tiny_model, tiny_tokenizer


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named_before_a_token_is_shown(value: float, temperature: float) -> None:
    model, shown = tiny_model(), list[str]()
    with torch.no_grad():
        model.model.norm.weight[3] = value
    with pytest.raises(MiniGPTError, match="no finite probabilities"):
        generate(
            model,
            tiny_tokenizer(),
            "The heart",
            sampling=Sampling(max_new_tokens=4, temperature=temperature),
            chat=False,
            on_text=shown.append,
        )
    assert not "".join(shown).strip()


class Breaking:
    """A runtime whose third token is chosen by logits that overflowed."""

    def __init__(self) -> None:
        self.config: Any = tiny_model().config
        self.tokenizer, self.steps = tiny_tokenizer(), 0

    def begin(self, _tokens: Any) -> Any:
        return np.eye(1, self.config.vocab_size, 40, dtype=np.float32)[0]

    def step(self, token: int) -> Any:
        self.steps += 1
        return self.begin(()) * (1 if self.steps < 2 else np.nan)


class Shown:
    """A streamer that counts what it is given."""

    def __init__(self) -> None:
        self.count = 0

    def put(self, tokens: Any) -> None:
        self.count += len(tokens)


def test_an_overflow_in_the_middle_of_a_text_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, runtime = Shown(), Breaking()
    with pytest.raises(MiniGPTError, match="no finite probabilities"):
        generate_tokens(runtime, [1, 2], Sampling(max_new_tokens=9, temperature=0.0), shown)  # type: ignore[arg-type]
    assert shown.count == 2 + 2


def test_tokens_that_are_ruled_out_are_no_damage() -> None:
    check_logits(torch.tensor([[float("-inf"), 1.0, float("-inf")]]))
    for bad in ([float("-inf")] * 3, [0.0, float("nan"), 1.0]):
        with pytest.raises(MiniGPTError):
            check_logits(torch.tensor([bad]))
