"""Sampling must draw from the model's own distribution, whatever the prompt lengths."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minigpt.transformer import sampling
from minigpt.transformer.sampling import can_sample, rows_within, sample
from tests.support.archsuite import DENSE
from tests.support.tiny import tiny_config, tiny_model


@pytest.mark.parametrize("family", [name for name in DENSE if name != "gemma2"])
def test_cold_sampling_is_greedy_decoding(family: str) -> None:
    """At a temperature near zero the texts are those of `generate`, for prompts of unequal length and odd rows."""
    model = tiny_model(family)
    prompts = [[1, 7, 300, 41], [1, 9], [5, 6, 7, 8, 9, 10, 11], [1], [1, 100, 101]]
    texts = sample(model, prompts, length=20, temperature=1e-5, rows=2)
    for prompt, text in zip(prompts, texts, strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_length=20,
            max_length=20,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert text == expected[0].tolist()


def test_attention_reads_no_further_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretches of places that are read instead of all change no text; the last place is always among them."""
    monkeypatch.setattr(sampling, "STRIDE", 8)
    seen: list[int] = []
    real = sampling._Buffers.store

    def remembered(self: Any, layer: int, key: torch.Tensor, value: torch.Tensor) -> Any:
        to_read = real(self, layer, key, value)
        assert int(self.place) < to_read[0].shape[2] == to_read[1].shape[2]
        if layer == 0:
            seen.append(to_read[0].shape[2])
        return to_read

    monkeypatch.setattr(sampling._Buffers, "store", remembered)
    short = sample(tiny_model("llama"), [[1, 7], [1, 2, 3]], length=20, seed=3)
    assert seen == [8] * 8 + [16] * 8 + [20] * 3
    monkeypatch.setattr(sampling, "STRIDE", 96)
    assert sample(tiny_model("llama"), [[1, 7], [1, 2, 3]], length=20, seed=3) == short
    assert seen[19:] == [20] * 19


@pytest.mark.gpu
def test_graphs_draw_what_plain_steps_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedily, over three graphs."""
    monkeypatch.setattr(sampling, "STRIDE", 8)
    model, prompts = tiny_model("llama"), [[1, 7, 300, 41], [1, 9]]
    expected = sample(model, prompts, length=20, temperature=1e-5)
    assert sample(model.cuda(), prompts, length=20, temperature=1e-5) == expected


def test_draws_follow_the_distribution() -> None:
    """The frequencies of 4,000 first tokens agree with the softmax within five standard errors."""
    model = tiny_model("llama", vocab_size=512)
    model.get_output_embeddings().weight.data.mul_(3)
    texts = sample(model, [[1, 2]] * 4000, length=3, rows=1000)
    with torch.no_grad():
        odds = model(torch.tensor([[1, 2]])).logits[0, -1].softmax(-1)
    drawn = torch.bincount(torch.tensor([text[2] for text in texts]), minlength=512) / 4000
    error = (odds * (1 - odds) / 4000).sqrt()
    assert ((drawn - odds).abs() <= 5 * error + 1e-3).all()


def test_seed_decides() -> None:
    """The same seed gives the same texts, another seed others; the attention is put back afterwards."""
    model = tiny_model("llama")
    before = model.config._attn_implementation
    first, again, other = (sample(model, [[1, 5]] * 3, length=24, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert model.config._attn_implementation == before
    assert sample(model, [], length=8) == []


def test_families_it_would_be_wrong_for_are_told() -> None:
    """A window shorter than the texts, or capped scores, are not what the buffers compute."""
    assert can_sample(tiny_config("llama"), 1000)
    assert not can_sample(tiny_config("gemma3_text"), 65)
    assert not can_sample(tiny_config("gemma2"), 8)
    assert not can_sample(tiny_config("mixtral"), 8), "the work of a step depends on where tokens go"


def test_nothing_holds_the_buffers_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of thousands of texts are many gigabytes, which healing needs."""
    references: list[weakref.ref[torch.Tensor]] = []
    real = sampling._Buffers.store

    def remembered(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        to_read = real(*arguments)
        references.append(weakref.ref(arguments[0].keys[arguments[1]]))
        return to_read

    monkeypatch.setattr(sampling._Buffers, "store", remembered)
    sample(tiny_model("llama"), [[1, 2]], length=4)
    gc.collect()
    assert references and not any(reference() is not None for reference in references)


@pytest.mark.parametrize(("memory", "rows"), [(80e9, 2048), (24e9, 512), (8e9, 256), (1, 1)])
def test_texts_decoded_together_fit_into_the_memory(memory: float, rows: int) -> None:
    """The default parent's 30 layers of 3 groups of 64: 8.8 MB of keys and values for 384 tokens."""
    config = tiny_config("llama")
    config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads = 30, 9, 3
    config.hidden_size, config.head_dim = 576, 64
    assert 30 * 3 * 64 * 2 * 384 * 2 * rows <= max(memory / 3, 8.9e6)
    assert rows_within(config, 384, int(memory)) == rows


def test_an_accelerator_decides_by_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of two bytes take half the room of those of four."""
    model = tiny_model("llama")
    row = 2 * model.config.num_hidden_layers * model.config.num_key_value_heads * model.config.head_dim * 10
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=3 * 128 * 4 * row))
    device = torch.device("cuda")
    assert sampling._default_rows(device, model, 10) == 128
    assert sampling._default_rows(device, model.to(torch.bfloat16), 10) == 256
