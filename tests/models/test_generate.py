"""Generating never chooses a token by logits that are not numbers, in transformers' loop and in that of runtimes."""

from __future__ import annotations

from copy import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from minigpt.errors import ConfigError, MiniGPTError
from minigpt.models.generate import Generation, Sampling, check_logits, generate, generate_tokens
from tests.support.tiny import tiny_config, tiny_model, tiny_tokenizer


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


def written(model: Any, prompt: str, most: int) -> Generation:
    """Greedy text of a model in transformers' loop."""
    shown = list[str]()
    sampling = Sampling(max_new_tokens=most)
    return generate(model, tiny_tokenizer(), prompt, sampling=sampling, chat=False, on_text=shown.append)


def narrow(family: str, window: int) -> Any:
    """A tiny model with so many positions, which never ends a text."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    config = tiny_config(family)
    config.max_position_embeddings = window
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    model.config.eos_token_id, model.generation_config = None, GenerationConfig()
    return model


def without_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no token end a text."""
    monkeypatch.setattr("minigpt.transformer.ends.end_tokens", lambda *_: frozenset())


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_the_window_ends_a_text_and_refuses_a_longer_prompt(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ends(monkeypatch)
    model = narrow(family, 24)
    short = written(model, "The heart", 4)
    assert (short.tokens, short.cut) == (4, None)
    cut = written(model, "The heart", 100)
    assert (cut.prompt_tokens + cut.tokens, cut.cut) == (24 + 1, 24)
    exact = written(model, "The heart", cut.tokens)
    assert (exact.text, exact.cut) == (cut.text, None)
    with pytest.raises(ConfigError, match=r"prompt has \d+ tokens, and the model reads at most 24"):
        written(model, "The heart pumps blood " * 20, 1)


def test_a_state_has_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ends(monkeypatch)
    for family in ("mamba", "rwkv"):
        model = tiny_model(family)
        if family == "rwkv":
            model.config.context_length = 24
        long = written(model, "The heart pumps blood " * 20, 30)
        assert long.prompt_tokens > 24 and (long.tokens, long.cut) == (30, None)


def test_a_runtime_refuses_a_longer_prompt() -> None:
    runtime: Any = Breaking()
    runtime.config = SimpleNamespace(max_position_embeddings=4, vocab_size=512)
    with pytest.raises(ConfigError, match="prompt has 5 tokens, and the model reads at most 4"):
        generate_tokens(runtime, [1, 2, 3, 4, 5], Sampling(max_new_tokens=1), Shown())


def test_a_question_to_a_model_without_template_is_refused() -> None:
    tokenizer = copy(tiny_tokenizer())
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        generate(tiny_model(), tokenizer, "x", sampling=Sampling(max_new_tokens=1), chat=True, on_text=print)


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
