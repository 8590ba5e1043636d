"""NF4: the library's values against the paper's table written out, honest bytes, and a model left as it was."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from minigpt.errors import ConfigError
from minigpt.healing import bits_per_byte, train
from minigpt.healing.adapters import trainable
from minigpt.healing.recipe import RECIPES
from minigpt.pipeline.settings import PRESETS, settings_for
from minigpt.pruning.apply import apply_plan
from minigpt.transformer import nf4
from tests.support.archsuite import logits, model_of, random_batch, some_plan
from tests.support.healing import VOCABULARY, Killed, Killer, patterned, recipe
from tests.support.tiny import tiny_model

pytest.importorskip("bitsandbytes")

# Dettmers et al. 2023, appendix E
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
IDS = random_batch(pad=0).input_ids
TEXT, DEV = patterned(80), patterned(12, seed=1)
QLORA = {"adapter": "qlora", "rank": 4, "learning_rate": 1e-2, "targets": "ffn"}


def nf4_by_hand(weight: torch.Tensor) -> torch.Tensor:
    """Every 64 values in a row share a scale; each takes the nearest of 16 levels."""
    levels, blocks = torch.tensor(NF4, dtype=torch.float64), weight.double().reshape(-1, 64)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    nearest = ((blocks / scale)[..., None] - levels).abs().argmin(-1)
    return (levels[nearest] * scale).reshape(weight.shape).float()


def test_round_trip_golden() -> None:
    weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(0))
    restored, stored = nf4.round_trip(weight, double=False)
    torch.testing.assert_close(restored, nf4_by_hand(weight), rtol=1e-6, atol=1e-6)
    tables = 16 * 4
    assert 0 < stored - (96 * 64 // 2 + 96 * 4 + tables) < 200, "half a byte a weight, a float a block, a description"
    again, less = nf4.round_trip(torch.randn(1024, 1024), double=True)
    assert again.dtype == torch.float32 and less * 8 / 1024**2 == pytest.approx(4.127, abs=0.02)
    assert nf4.round_trip(weight.bfloat16())[0].dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(64, 96), (32, 32), (32, 16), (3, 128), (33, 64), (7, 10)])
def test_rows_need_not_be_whole_blocks(shape: tuple[int, int]) -> None:
    """A pruned FFN is a multiple of 32 wide, a block is 64 values, and a scale belongs to its block."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(weight.flatten(), (0, -weight.numel() % 64))
    restored = nf4.round_trip(weight, double=False)[0].flatten()
    torch.testing.assert_close(restored, nf4_by_hand(padded)[: weight.numel()], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text"])
def test_a_model_in_four_bits(family: str) -> None:
    """Projections hold their NF4 values, all else is as it was, and so is everything afterwards."""
    model = model_of(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with nf4.four_bit(model, double=False) as size:
        inside = {name: value.clone() for name, value in model.state_dict().items()}
        answer = logits(model, IDS)
    quantized = 0
    for name, value in before.items():
        if "_proj.weight" in name:
            torch.testing.assert_close(inside[name], nf4_by_hand(value), rtol=1e-6, atol=1e-6)
            quantized += value.numel()
        else:
            assert torch.equal(inside[name], value)
        assert torch.equal(model.state_dict()[name], value)
    assert size.quantized == quantized and size.parameters == sum(p.numel() for p in model.parameters())
    assert size.bytes == size.quantized_bytes + 2 * (size.parameters - quantized)
    real = deepcopy(model)
    nf4.quantize_projections(real, torch.float32, double=False)
    torch.testing.assert_close(logits(real, IDS), answer, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "smollm3"])
def test_both_orders_give_the_same_weights_for_the_same_layers(family: str) -> None:
    """NF4 looks at one matrix at a time: cutting layers before or after it changes no byte."""
    cut_first, quantized_first = model_of(family), model_of(family)
    plan = some_plan(cut_first, neurons=64, groups=2)
    apply_plan(cut_first, plan)
    with nf4.four_bit(cut_first):
        expected = {name: value.clone() for name, value in cut_first.state_dict().items()}
    with nf4.four_bit(quantized_first):
        values = {name: value.clone() for name, value in quantized_first.state_dict().items()}
    quantized_first.load_state_dict(values)
    after = apply_plan(quantized_first, plan).state_dict()
    assert after.keys() == expected.keys() and all(torch.equal(after[name], expected[name]) for name in expected)


def test_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"pip install 'minigpt\[qlora\]'"), nf4.four_bit(tiny_model()):
        pass


def modules(model: Any) -> dict[str, type]:
    return {name: type(module) for name, module in model.named_modules()}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text"])
def test_qlora_hands_back_the_dense_model_it_measured(family: str, tmp_path: Path) -> None:
    """Attention holds its dequantized values, the FFN those plus the adapters; saved and loaded it scores the same."""
    from transformers import AutoModelForCausalLM

    model = apply_plan(model_of(family, vocab_size=VOCABULARY), some_plan(model_of(family, vocab_size=VOCABULARY)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = modules(model)
    result = train(model, TEXT, DEV, recipe(**QLORA))
    assert result.best_step > 0 and result.recipe.startswith("QLoRA (NF4) rank 4 on ffn")
    assert list(model.state_dict()) == list(before) and modules(model) == kinds and not model.training
    assert not any("peft" in name or "4bit" in name for name in vars(model))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    for name, value in model.state_dict().items():
        if "self_attn" in name and name.endswith("_proj.weight"):
            assert torch.equal(value, nf4.round_trip(before[name])[0])
        elif "_proj.weight" in name:
            difference = value - nf4.round_trip(before[name])[0]
            assert 0 < torch.linalg.matrix_rank(difference, rtol=1e-3) <= 4
        else:
            assert torch.equal(value, before[name])
    best = min(loss for _, loss in result.dev_losses)
    assert bits_per_byte(model, DEV, precision="fp32") == pytest.approx(best, rel=1e-4)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert bits_per_byte(again, DEV, precision="fp32") == pytest.approx(best, rel=1e-4)


def test_only_adapters_train_on_a_frozen_four_bit_model() -> None:
    model = tiny_model(vocab_size=VOCABULARY)
    with trainable(model, recipe(**QLORA)) as adapted:
        free = [name for name, p in adapted.named_parameters() if p.requires_grad]
        assert len(free) == 2 * 3 * 4 and all(".lora_" in name and ".mlp." in name for name in free)
        packed = [p for name, p in adapted.named_parameters() if p.dtype == torch.uint8]
        assert len(packed) == 7 * 4


def test_an_interrupted_run_brings_the_dense_weights_back() -> None:
    model = tiny_model(vocab_size=VOCABULARY)
    before, kinds = {name: value.clone() for name, value in model.state_dict().items()}, modules(model)
    with pytest.raises(Killed):
        train(model, TEXT, DEV, recipe(**QLORA), reporter=Killer(3))
    assert modules(model) == kinds and all(
        torch.equal(value, before[name]) for name, value in model.state_dict().items()
    )
    with pytest.raises(ConfigError, match="nothing_like_it"):
        train(model, TEXT, DEV, recipe(**(QLORA | {"targets": "nothing_like_it"})))
    assert modules(model) == kinds and all(p.requires_grad for p in model.parameters())
    assert all(isinstance(module, nn.Linear) for module in nf4.projections_of(model).values())


def test_alpha_scales_and_dropout_is_kept_to() -> None:
    model = tiny_model(vocab_size=VOCABULARY)
    with trainable(model, recipe(adapter="lora", rank=4, alpha=8, dropout=0.25)) as adapted:
        layer = adapted.get_base_model().model.layers[0].mlp.down_proj
        assert layer.scaling["default"] == 2.0 and layer.lora_dropout["default"].p == 0.25


def test_the_papers_recipe_is_a_setting() -> None:
    healing = settings_for("quick", {"recipe": "deeper-layers", "heal.steps": "7"}).heal
    assert (healing.steps, healing.adapter, healing.rank, healing.targets) == (7, "qlora", 64, "ffn")
    assert (healing.learning_rate, healing.warmup, healing.final, healing.dropout) == (3e-4, 100, 0.0, 0.05)
    assert healing.tokens_per_step == 16 * 2048 and RECIPES["deeper-layers"].steps == 5000
    assert settings_for("quick", {"recipe": "preset"}).heal == PRESETS["quick"].heal
    with pytest.raises(Exception, match="Did you mean 'deeper-layers'"):
        settings_for("quick", {"recipe": "deeper-layer"})
