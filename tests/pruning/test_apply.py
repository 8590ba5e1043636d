"""Slicing: equal to masking on every family, stock classes load the result, a keep-all plan changes no byte."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from minigpt.errors import PlanError, UnsupportedModel
from minigpt.methods.ranking import make_plan, select
from minigpt.methods.scores import Scores
from minigpt.pruning.apply import apply_plan, mask_plan
from minigpt.transformer import arch
from minigpt.transformer.fused import separate_projections
from minigpt.types import Shape
from tests.support.archsuite import FAMILIES, keep_all, logits, model_of, random_batch, some_plan

IDS = random_batch(pad=0).input_ids


@pytest.mark.parametrize("family", FAMILIES)
def test_slice_equals_mask(family: str) -> None:
    """Removing units must equal zeroing them: pruning may lose quality, never correctness."""
    model = model_of(family)
    plan, dense = some_plan(model), logits(model, IDS)
    with mask_plan(model, plan):
        masked = logits(model, IDS)
    assert torch.equal(logits(model, IDS), dense), "the mask must leave nothing behind"
    sliced = logits(apply_plan(model, plan), IDS)
    torch.testing.assert_close(sliced, masked, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(sliced, dense, atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_keep_all_changes_no_byte(family: str) -> None:
    """The identity plan keeps the state dict and the config."""
    model = model_of(family)
    before, config = deepcopy(model.state_dict()), model.config.to_dict()
    apply_plan(model, keep_all(model))
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert model.config.to_dict() == config


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_through_stock_classes(family: str, tmp_path: Any) -> None:
    """Save, load with plain transformers: same logits, same greedy text with the cache, shapes as in the config."""
    model = model_of(family)
    plan, before = some_plan(model), arch.shape_of(model)
    child = apply_plan(model, plan)
    child.save_pretrained(tmp_path)
    attention = child.config._attn_implementation
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=attention).eval()
    torch.testing.assert_close(logits(loaded, IDS), logits(child, IDS), rtol=1e-5, atol=1e-5)
    kwargs = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(loaded.generate(IDS[:1], **kwargs), child.generate(IDS[:1], **kwargs))
    shape = arch.shape_of(loaded)
    groups = len(plan.kv_groups[0])
    width, experts = (64, 3) if before.experts else (32, 0)
    assert shape == replace(before, layers=3, intermediate_size=width, kv_groups=groups, experts=experts)
    assert groups == 1 or arch.legal_kv_groups(child) == (before.kv_groups,)
    assert sum(p.numel() for p in loaded.parameters()) == arch.parameters_of(loaded)
    heads = groups * arch.heads_per_group(child.config)
    spec = arch.arch_of(child)
    with separate_projections(child):
        for index, layer in enumerate(arch.decoder_layers(child)):
            assert layer.get_submodule(spec.attention_module).layer_idx == index
            sizes = [layer.get_submodule(path).weight.shape for path in (spec.query, spec.output)]
            assert sizes == [(8 * heads, 32), (32, 8 * heads)]
            assert spec.experts is not None or layer.get_submodule(spec.ffn_columns).weight.shape == (32, 32)
            assert all(layer.get_submodule(path).weight.shape == (8 * groups, 32) for path in spec.key_value)


@pytest.mark.parametrize("family", ["gemma3_text", "smollm3", "qwen2"])
def test_per_layer_lists_follow_the_layers(family: str) -> None:
    """Layer kinds belong to layers, not to places in the stack."""
    model = model_of(family)
    if family != "smollm3":
        model.config.layer_types = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    fields = arch.arch_of(model).per_layer
    before = {name: list(getattr(model.config, name)) for name in fields}
    apply_plan(model, some_plan(model, layers=(1, 3)))
    assert {name: getattr(model.config, name) for name in fields} == {n: [v[1], v[3]] for n, v in before.items()}


def test_biases_are_cut_with_their_rows() -> None:
    """Llama with all biases: slicing still equals masking, except for the bias a masked q, k or v never shows."""
    model = model_of("llama")
    config = deepcopy(model.config)
    config.attention_bias = config.mlp_bias = True
    biased = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for parameter in biased.parameters():
            parameter.normal_(0, 0.2)
    plan = some_plan(biased)
    with mask_plan(biased, plan):
        masked = logits(biased, IDS)
    torch.testing.assert_close(logits(apply_plan(biased, plan), IDS), masked, rtol=1e-4, atol=1e-4)
    assert biased.model.layers[0].mlp.gate_proj.bias.shape == (32,)
    assert biased.model.layers[0].mlp.down_proj.bias.shape == (32,)


def test_tied_embeddings_stay_tied() -> None:
    """Pruning touches neither the embedding nor the tie."""
    model = apply_plan(model_of("llama"), some_plan(model_of("llama")))
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_gradients_and_dtype_survive() -> None:
    """A pruned bf16 model still trains."""
    model = apply_plan(model_of("llama").bfloat16(), some_plan(model_of("llama")))
    assert all(p.requires_grad and p.dtype == torch.bfloat16 for p in model.parameters())
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert model.model.layers[0].mlp.down_proj.weight.grad.shape == (32, 32)


def test_bad_plans_are_refused() -> None:
    """A plan that does not fit is refused before a single weight changes."""
    model = model_of("llama")
    plan = some_plan(model)
    bad = {
        "same number": replace(plan, ffn=(*plan.ffn[:2], plan.ffn[2][:5])),
        "ascending": replace(plan, layers=(2, 0, 3)),
        "below 64": replace(plan, ffn=tuple((*row[:-1], 64) for row in plan.ffn)),
        "each kept layer": replace(plan, layers=(0, 1)),
        "at least one": replace(plan, kv_groups=((), (), ())),
    }
    before = deepcopy(model.state_dict())
    for message, broken in bad.items():
        with pytest.raises(PlanError, match=message):
            apply_plan(model, broken)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_quantized_projections_are_refused() -> None:
    """Only plain linear layers can be cut."""
    model = model_of("llama")
    model.model.layers[0].mlp.gate_proj = nn.Identity()
    with pytest.raises(UnsupportedModel, match="gate_proj is a Identity"):
        apply_plan(model, some_plan(model))


def test_select_keeps_the_best_of_each_layer() -> None:
    """Top-k per layer, ascending; ends of the stack are protected; ties keep the lower index."""
    scores = Scores(
        method="test",
        ffn=torch.tensor([[1.0, 5, 3, 3], [9, 8, 7, 6], [0, 1, 2, 3]]),
        kv_groups=torch.tensor([[0.1, 0.2], [2, 1], [5, 5]]),
        layers=torch.tensor([0.0, 9, 0]),
    )
    shape = Shape(layers=2, intermediate_size=2, kv_groups=1, vocab_size=8)
    assert select(scores, shape) == ((0, 2), ((1, 2), (2, 3)), ((1,), (0,)))
    assert select(scores, shape, protect=())[0] == (0, 1)
    assert make_plan(scores, shape, protect=()).ffn == ((1, 2), (0, 1))
