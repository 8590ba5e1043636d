"""The architecture table against stock transformers: counts, legal shapes, refusals."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from minigpt.errors import ConfigError, PlanError, UnsupportedModel
from minigpt.transformer import arch
from minigpt.types import Shape
from tests.support.archsuite import FAMILIES
from tests.support.tiny import tiny_config, tiny_model


def reshaped(config: Any, shape: Shape) -> Any:
    """The config of a child, written by hand."""
    child, spec = deepcopy(config), arch.arch_of(config)
    child.num_attention_heads = shape.kv_groups * (config.num_attention_heads // getattr(config, spec.groups))
    child.num_key_value_heads, child.head_dim = shape.kv_groups, 8
    setattr(child, spec.width, shape.intermediate_size)
    child.vocab_size = shape.vocab_size
    child.num_hidden_layers = shape.layers
    if spec.experts is not None:
        setattr(child, spec.experts.count, shape.experts)
    for name in ("layer_types", "no_rope_layers"):
        if getattr(child, name, None) is not None:
            setattr(child, name, getattr(child, name)[: shape.layers])
    return child


def true_parameters(config: Any) -> int:
    """Parameters as transformers makes them; `parameters()` lists a tied weight once."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_formula_counts_what_transformers_makes(family: str, tied: bool) -> None:
    """The planner's arithmetic is exact for the parent and for a child of every width."""
    config = tiny_config(family, tied=tied)
    parent, fewest = arch.shape_of(config), min(arch.legal_kv_groups(config))
    # The width of experts stays.
    narrow = {"experts": 3} if parent.experts else {"intermediate_size": 32}
    for shape in (parent, replace(parent, layers=3, kv_groups=fewest, vocab_size=128, **narrow)):
        assert arch.parameters_of(config, shape) == true_parameters(reshaped(config, shape))
        assert sum(arch.unit_costs(config).breakdown(shape).values()) == arch.parameters_of(config, shape)


def test_biases_count() -> None:
    """Llama's optional biases are part of the neuron, the group and the layer."""
    config = tiny_config("llama")
    config.attention_bias = config.mlp_bias = True
    for shape in (arch.shape_of(config), Shape(layers=2, intermediate_size=40, kv_groups=1, vocab_size=64)):
        assert arch.parameters_of(config, shape) == true_parameters(reshaped(config, shape))


def test_default_parent_has_its_published_size() -> None:
    """SmolLM2-135M: 134,515,008 parameters, 21.0 % of them in the tied embedding."""
    config = AutoConfig.for_model(
        "llama",
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    assert arch.parameters_of(config) == 134_515_008
    assert arch.unit_costs(config).breakdown(arch.shape_of(config))["embedding"] == 49152 * 576
    assert arch.legal_kv_groups(config) == (1, 2, 3)


def test_head_rule_divides() -> None:
    """A Llama with hidden size 32 and 2 heads a group loads 1, 2 and 4 groups, not 3; Mistral loads all."""
    wide = {"num_attention_heads": 8, "num_key_value_heads": 4}
    llama, mistral = tiny_config("llama"), tiny_config("mistral")
    for config in (llama, mistral):
        config.update(wide)
    assert arch.legal_kv_groups(llama) == (1, 2, 4)
    assert arch.legal_kv_groups(mistral) == (1, 2, 3, 4)
    with pytest.raises(PlanError, match=r"6 query heads.*choose one of 1, 2, 4"):
        arch.check_shape(llama, Shape(layers=1, intermediate_size=1, kv_groups=3, vocab_size=1))


@pytest.mark.parametrize("family", FAMILIES)
def test_legal_groups_are_what_transformers_validates(family: str, tmp_path: Any) -> None:
    """The head rule of the table is the one the installed transformers enforces on loading.

    A family also keeps its heads where the head size would change with them, and where a norm runs over all of them.
    """
    parent, spec = tiny_config(family), arch.ARCHITECTURES[family]
    if spec.head_rule != "none":
        parent.update({"num_attention_heads": 8, "num_key_value_heads": 4})
    most, loads = arch.shape_of(parent).kv_groups, []
    for groups in range(1, most + 1):
        shape = replace(arch.shape_of(parent), intermediate_size=16, kv_groups=groups, vocab_size=64)
        try:
            child = reshaped(parent, shape)
            child.save_pretrained(tmp_path / str(groups))
            loaded = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path / str(groups)))
            heads_fit = attention_width(loaded) == 8 * loaded.config.num_attention_heads
            loads += [groups] if heads_fit and (groups == most or not spec.wide_norms) else []
        except Exception as error:
            assert "multiple" in str(error) or "divisible" in str(error)
    assert tuple(loads) == arch.legal_kv_groups(parent)


def attention_width(model: Any) -> int:
    """Return the features that attention gives to its output projection, in heads that the family computes."""
    attention = arch.decoder_layers(model)[0].get_submodule(arch.arch_of(model).attention_module)
    size = getattr(attention, "head_dim", None) or attention.head_size
    return int(size * model.config.num_attention_heads)


@given(st.integers(-1, 6), st.integers(-1, 70), st.integers(-1, 4))
@settings(max_examples=40, deadline=None)
def test_shapes_outside_the_parent_are_refused(layers: int, neurons: int, groups: int) -> None:
    """A child is never larger than its parent and never empty."""
    config = tiny_config("llama")
    shape = Shape(layers=layers, intermediate_size=neurons, kv_groups=groups, vocab_size=512)
    if 1 <= layers <= 4 and 1 <= neurons <= 64 and 1 <= groups <= 2:
        arch.check_shape(config, shape)
    else:
        with pytest.raises(PlanError, match="choose"):
            arch.check_shape(config, shape)


def test_unknown_family_is_refused_with_the_known_ones() -> None:
    """T5 has an encoder: the sentence names what would work."""
    with pytest.raises(UnsupportedModel, match=r"'t5'.*llama, mamba, mamba2, ministral, mistral"):
        arch.arch_of(AutoConfig.for_model("t5"))


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("opt", "do_layer_norm_before", False),
        ("opt", "word_embed_proj_dim", 16),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("stablelm", "use_parallel_residual", True),
        ("phi", "qk_layernorm", True),
    ],
)
def test_variants_that_are_not_described_are_refused(family: str, field: str, value: Any) -> None:
    """OPT-350M has its norms elsewhere and a smaller embedding; the sentence names field and wanted value."""
    config = tiny_config(family)
    arch.arch_of(config)
    setattr(config, field, value)
    with pytest.raises(UnsupportedModel, match=rf"'{family}' with {field}={value}.*choose"):
        arch.arch_of(config)


def test_windows_end_with_the_learned_positions() -> None:
    """A table of positions has a last row; rotary embeddings have none."""
    arch.check_window(tiny_config("gpt2"), 512)
    arch.check_window(tiny_config("llama"), 100_000)
    for family in ("gpt2", "opt"):
        with pytest.raises(ConfigError, match=r"positions for 512 tokens.*heal\.window=512"):
            arch.check_window(tiny_config(family), 513)


def test_layers_and_decoder_are_found() -> None:
    """The paths of the table lead to the real modules."""
    model = tiny_model("qwen3")
    assert len(arch.decoder_layers(model)) == 4
    assert arch.base_model(model) is model.model
