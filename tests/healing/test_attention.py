"""The attention of a training step on a processor: when it changes, and that it computes the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minigpt.healing import attention
from minigpt.healing.attention import FUSED, MAX_PLAIN_LENGTH, MAX_PLAIN_SCORES, PLAIN, plain_is_faster, step_attention
from minigpt.transformer.arch import arch_of, decoder_layers
from minigpt.transformer.batches import run_decoder
from tests.support.archsuite import FAMILIES, model_of, random_batch

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with bf16 arithmetic, whatever the machine of the test has."""
    monkeypatch.setattr(attention, "has_fast_bf16", lambda device: True)


def gradients(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The gradients of all weights, in one vector."""
    model.zero_grad()
    model(input_ids=ids, use_cache=False).logits.float().logsumexp(-1).sum().backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.usefixtures("fast_bf16")
def test_short_rows_in_bf16_on_a_processor_take_plain_products() -> None:
    assert plain_is_faster(CPU, "auto", rows=4, length=256, heads=9)
    assert plain_is_faster(CPU, "bf16", rows=4, length=256, heads=9)
    assert not plain_is_faster(CPU, "fp32", rows=4, length=256, heads=9)
    assert not plain_is_faster(GPU, "auto", rows=4, length=256, heads=9)
    assert not plain_is_faster(CPU, "auto", rows=1, length=MAX_PLAIN_LENGTH + 1, heads=1)


@pytest.mark.usefixtures("fast_bf16")
def test_a_large_batch_keeps_the_attention_that_stores_no_scores() -> None:
    rows = MAX_PLAIN_SCORES // (9 * 256**2)
    assert plain_is_faster(CPU, "auto", rows=rows, length=256, heads=9)
    assert not plain_is_faster(CPU, "auto", rows=rows + 1, length=256, heads=9)


def test_a_processor_without_bf16_arithmetic_keeps_its_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "has_fast_bf16", lambda device: False)
    assert not plain_is_faster(CPU, "auto", rows=4, length=256, heads=9)


@pytest.mark.usefixtures("fast_bf16")
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_same_in_every_family(family: str) -> None:
    """In fp32 both kinds of attention agree; a window shorter than the text (Gemma, Mistral) is kept."""
    model = model_of(family)
    before = model.config._attn_implementation
    for part in (
        model.config,
        *(layer.get_submodule(arch_of(model).attention_module) for layer in decoder_layers(model)),
    ):
        if getattr(part, "sliding_window", None):
            part.sliding_window = 6
    ids = torch.randint(3, 512, (3, 24), generator=torch.Generator().manual_seed(1))
    ids[1, 15:] = 0  # padding on the right
    expected = gradients(model, ids)
    with step_attention(model, ids, "auto"):
        assert model.config._attn_implementation == PLAIN
        actual = gradients(model, ids)
    torch.testing.assert_close(actual, expected, rtol=2e-3, atol=1e-4 * float(expected.abs().max()))
    assert model.config._attn_implementation == before == (PLAIN if family in {"gemma2", "gpt_oss"} else FUSED)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_windows_are_read_alike_by_both(family: str) -> None:
    """Position ids that restart and a mask of blocks mean the same to plain products."""
    model, batch = model_of(family), random_batch()
    with torch.no_grad():
        expected = run_decoder(model, batch)
        model.set_attn_implementation(PLAIN)
        actual = run_decoder(model, batch)
    torch.testing.assert_close(actual[batch.segment_ids != 0], expected[batch.segment_ids != 0], rtol=1e-4, atol=1e-4)


def test_bf16_gradients_are_as_near_to_the_exact_ones() -> None:
    """Plain products round no worse than the fused kernel, averaged over a batch."""
    model = model_of("llama")
    ids = torch.randint(3, 512, (4, 120), generator=torch.Generator().manual_seed(2))
    exact, error = gradients(model, ids), {}
    for name in (FUSED, PLAIN):
        model.set_attn_implementation(name)
        with torch.autocast("cpu", torch.bfloat16):
            error[name] = float((gradients(model, ids) - exact).norm() / exact.norm())
    assert error[PLAIN] < 1.25 * error[FUSED] < 0.2


@pytest.mark.usefixtures("fast_bf16")
def test_the_attention_is_put_back_after_an_error_and_no_other_is_touched() -> None:
    model, ids = model_of("llama"), torch.ones(2, 8, dtype=torch.long)
    with pytest.raises(RuntimeError), step_attention(model, ids, "auto"):
        raise RuntimeError
    assert model.config._attn_implementation == FUSED
    model.set_attn_implementation("flex_attention")
    with step_attention(model, ids, "auto"):
        assert model.config._attn_implementation == "flex_attention"
