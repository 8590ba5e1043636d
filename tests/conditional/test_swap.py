"""Conditional layers in models: dense weights out, layers in, and the model as it was afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from minigpt.conditional import swap
from minigpt.conditional.base import ConditionalFFN, DenseWeights
from minigpt.conditional.layers import LeafSettings, Relu, ReluSettings, TreeSettings, build
from minigpt.conditional.layers.threshold import threshold_layer
from minigpt.errors import ConfigError, UnsupportedModel
from tests.support.archsuite import EXPERTS
from tests.support.tiny import FAMILIES, tiny_model

OTHERS = ("bert", "bert classifier", "roberta", "gpt_neox", "phi")


def other_model(name: str) -> Any:
    """A small random model of a family that the table of decoders does not have."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        name.partition(" ")[0],
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    auto = AutoModel if name in ("bert", "roberta") else AutoModelForCausalLM
    auto = AutoModelForSequenceClassification if "classifier" in name else auto
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)  # biases too, so that a forgotten one is seen
    return model


def any_model(name: str) -> Any:
    return other_model(name) if name in OTHERS else tiny_model(name)


def output(model: Any) -> torch.Tensor:
    ids = torch.arange(3, 19).view(2, 8)
    with torch.no_grad():
        return model(ids)[0]


def dense_copy(weights: DenseWeights) -> ConditionalFFN:
    """A conditional layer that computes what the dense one does."""
    shares = {"in": 0.0, "gate": 0.0, "out": 0.0}
    return threshold_layer(weights, torch.zeros(1, weights.hidden_size), shares).eval()


@pytest.mark.parametrize("name", (*(name for name in FAMILIES if name not in EXPERTS), *OTHERS))
def test_a_layer_with_the_dense_weights_changes_nothing(name: str) -> None:
    model = any_model(name)
    before, names = output(model), [key for key, _ in model.named_modules()]
    layers = {index: dense_copy(swap.dense_weights(model, index)) for index in (0, 2)}
    replacement = swap.put(model, layers)
    assert len(swap.conditional_layers(model)) == 2
    torch.testing.assert_close(output(model), before, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        layers[2].w_out.zero_()
    assert not torch.allclose(output(model), before, rtol=1e-3, atol=1e-3)
    replacement.undo()
    assert torch.equal(output(model), before)
    assert [key for key, _ in model.named_modules()] == names


def test_dense_weights_share_memory_and_compute_the_layer() -> None:
    model, x = tiny_model("llama"), torch.randn(5, 32)
    weights = swap.dense_weights(model, 1)
    mlp = model.model.layers[1].mlp
    assert weights.w_out.data_ptr() == mlp.down_proj.weight.data_ptr()
    torch.testing.assert_close(weights.forward(x), mlp(x))
    double = weights.to(torch.float64)
    assert (double.w_gate.dtype, double.b_in, double.neurons) == (torch.float64, None, 64)


def test_the_context_puts_the_dense_layers_back_after_an_error() -> None:
    model = tiny_model()
    before = output(model)
    trees = {1: build(TreeSettings(hidden_size=32, depth=2, trees=2, gated=True, activation="silu"))}
    with pytest.raises(RuntimeError, match="inside"), swap.conditional(model, trees) as changed:
        assert not torch.equal(output(changed), before)
        raise RuntimeError("inside")
    assert torch.equal(output(model), before)


def test_a_second_layer_in_the_same_place_and_back_in_two_steps() -> None:
    model = tiny_model()
    before = output(model)
    first = swap.put(model, {0: build(TreeSettings(hidden_size=32, depth=1))})
    between = output(model)
    assert not any(layer.training for layer in swap.conditional_layers(model).values())
    second = swap.put(model, {0: build(LeafSettings(hidden_size=32, depth=1, leaf_width=2))})
    second.undo()
    assert torch.equal(output(model), between)
    first.undo()
    assert torch.equal(output(model), before)


def test_layers_follow_the_mode_of_the_model_and_train_inside_of_it() -> None:
    model = tiny_model().train()
    layers = {
        0: build(LeafSettings(hidden_size=32, depth=2, leaf_width=4, hardening=1.0)),
        1: build(ReluSettings(hidden_size=32, neurons=16, l1=1.0)),
        3: build(TreeSettings(hidden_size=32, depth=2)),
    }
    swap.put(model, layers)
    assert all(layer.training for layer in layers.values())
    ids = torch.arange(3, 19).view(2, 8)
    loss = model(ids, labels=ids).loss
    total = swap.penalty_of(model)
    torch.testing.assert_close(total, layers[0].penalty() + layers[1].penalty())
    assert float(total.detach()) > 0
    (loss + total).backward()
    for layer in layers.values():
        assert all(value.grad is not None for value in layer.parameters())
    model.eval()
    assert not layers[0].training


def test_gradient_checkpointing_keeps_the_gradient_of_the_penalty() -> None:
    ids, gradients = torch.arange(3, 19).view(2, 8), []
    for checkpointing in (False, True):
        model = tiny_model().train()
        torch.manual_seed(0)
        layer = Relu(ReluSettings(hidden_size=32, neurons=16, l1=1.0))
        swap.put(model, {1: layer})
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        (model(ids, labels=ids).loss + 10 * swap.penalty_of(model)).backward()
        gradients.append(layer.w_in.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_model_without_conditional_layers_has_no_penalty() -> None:
    assert float(swap.penalty_of(nn.Linear(2, 2))) == 0.0


def test_what_does_not_fit_is_refused_before_anything_is_changed() -> None:
    model = tiny_model()
    before = output(model)
    good, wrong = TreeSettings(hidden_size=32, depth=1), TreeSettings(hidden_size=16, depth=1)
    with pytest.raises(ConfigError, match="made for a hidden size of 16, and the model has 32"):
        swap.put(model, {0: build(good), 1: build(wrong)})
    with pytest.raises(ConfigError, match="no layer 4; the model has layers 0 to 3"):
        swap.put(model, {0: build(good), 4: build(good)})
    with pytest.raises(ConfigError, match="no layer -1"):
        swap.dense_weights(model, -1)
    assert torch.equal(output(model), before)
    assert not swap.conditional_layers(model)


def test_models_that_are_not_described_are_refused() -> None:
    model = tiny_model()
    swap.put(model, {0: build(TreeSettings(hidden_size=32, depth=1))})
    with pytest.raises(UnsupportedModel, match=r"no dense mlp.gate_proj; put its dense layer back"):
        swap.dense_weights(model, 0)
    model.model.layers[1].mlp.up_proj = nn.Identity()
    with pytest.raises(UnsupportedModel, match="is a Identity, not a plain linear layer"):
        swap.dense_weights(model, 1)
    model.model.layers[2].mlp.gate_proj = nn.Linear(32, 64)
    with pytest.raises(UnsupportedModel, match="gate of this model has a bias"):
        swap.dense_weights(model, 2)
    model.config.hidden_act = "mish"
    with pytest.raises(UnsupportedModel, match="activation 'mish' is not known"):
        swap.dense_weights(model, 3)
    model.config.model_type = "falcon_h1"
    with pytest.raises(UnsupportedModel, match=r"type 'falcon_h1' are not described.*bert, .*llama"):
        swap.ffn_paths(model)


@pytest.mark.parametrize("name", EXPERTS)
def test_layers_of_experts_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedModel, match="conditional"):
        swap.dense_weights(tiny_model(name), 0)
