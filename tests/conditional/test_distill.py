"""Layer-wise distillation: inputs from a model, errors that fall, and nothing else that changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minigpt.conditional.convert import relative_error, to_leaves, to_relu, to_trees
from minigpt.conditional.distill import DistillOptions, distill, ffn_inputs
from minigpt.conditional.layers import TreeSettings, build
from minigpt.conditional.swap import dense_weights
from minigpt.errors import ConfigError
from minigpt.transformer.batches import Batch
from tests.support.tiny import tiny_model


def batches() -> list[Batch]:
    """Two batches of windows with padding, and with two documents in a window."""
    ids = torch.arange(1, 97).view(2, 3, 16)
    segments = torch.ones(2, 3, 16, dtype=torch.long)
    segments[0, 0, 12:] = 0
    segments[1, 1, 8:] = 2
    positions = torch.arange(16).expand(2, 3, 16).clone()
    positions[1, 1, 8:] -= 8
    return [Batch(input_ids=ids[i], position_ids=positions[i], segment_ids=segments[i]) for i in range(2)]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama")


def test_inputs_are_those_of_the_layer_without_padding(model: Any) -> None:
    inputs = ffn_inputs(model, (0, 2), batches())
    assert {index: tuple(x.shape) for index, x in inputs.items()} == {0: (92, 32), 2: (92, 32)}
    seen: list[torch.Tensor] = []
    handle = model.model.layers[2].mlp.register_forward_hook(lambda _m, args, _o: seen.append(args[0]))
    with torch.no_grad():
        model(torch.arange(1, 97).view(2, 3, 16)[0, 1:])
    handle.remove()
    torch.testing.assert_close(inputs[2][12:44], seen[0].reshape(-1, 32), rtol=1e-4, atol=1e-4)
    assert not model.model.layers[2].mlp._forward_pre_hooks


@pytest.mark.parametrize("kind", ["trees", "leaves", "top-k", "random trees"])
def test_distillation_lowers_the_error_on_unseen_inputs(model: Any, kind: str) -> None:
    weights = dense_weights(model, 1)
    generator = torch.Generator().manual_seed(0)
    # Inputs of low rank, as those of trained models: 32 independent directions would need far more tokens and steps.
    directions = torch.randn(6, 32, generator=generator) / 6**0.5
    x, unseen = (torch.randn(count, 6, generator=generator) @ directions for count in (8000, 500))
    layer = {
        "trees": lambda: to_trees(weights, x, depth=2, trees=8),
        "leaves": lambda: to_leaves(weights, x, depth=2, leaf_width=24, hardening=0.05),
        "top-k": lambda: to_relu(weights, top_k=8),
        "random trees": lambda: build(
            TreeSettings(hidden_size=32, depth=2, trees=8, gated=True, activation="silu", output_bias=True)
        ),
    }[kind]()
    layer.eval()
    copy, state = weights.w_in.clone(), torch.get_rng_state()
    options = DistillOptions(steps=120, batch_tokens=256, lr=5e-3)
    report = distill(layer, weights, x, unseen=unseen, options=options)
    assert report.after < 0.85 * report.before
    assert report.after == pytest.approx(relative_error(layer, weights, unseen))
    assert len(report.losses) == 120
    assert not layer.training
    assert torch.equal(weights.w_in, copy)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_gives_the_same_layer(model: Any) -> None:
    weights, x = dense_weights(model, 1), torch.randn(200, 32, generator=torch.Generator().manual_seed(0))
    layers = []
    for seed in (1, 1, 2):
        layer = to_leaves(weights, x, depth=2, leaf_width=4, region_leak=0.1, hardening=0.1, balance=0.1)
        distill(layer, weights, x, options=DistillOptions(steps=5, batch_tokens=64, seed=seed))
        layers.append(layer.w_in.detach())
    assert torch.equal(layers[0], layers[1])
    assert not torch.equal(layers[0], layers[2])


def test_the_error_is_that_of_the_definition(model: Any) -> None:
    weights, x = dense_weights(model, 1), torch.randn(50, 32)
    layer = to_trees(weights, x, depth=1, trees=4)
    exact = weights.forward(x)
    expected = (layer.hard_forward(x) - exact).square().sum() / (exact - exact.mean(0)).square().sum()
    assert relative_error(layer, weights, x, tokens=7) == pytest.approx(expected.item(), rel=1e-5)


def test_the_penalty_is_part_of_the_loss(model: Any) -> None:
    weights, sizes = dense_weights(model, 1), []
    x = torch.randn(500, 32, generator=torch.Generator().manual_seed(0))
    for l1 in (0.0, 20.0):
        layer = to_relu(weights, activation="relu", l1=l1)
        distill(layer, weights, x, options=DistillOptions(steps=40, batch_tokens=128, lr=1e-2))
        with torch.no_grad():
            sizes.append(layer.values(x).abs().mean().item())
    assert sizes[1] < 0.7 * sizes[0]


def test_no_steps_change_nothing_and_no_tokens_are_refused(model: Any) -> None:
    weights, x = dense_weights(model, 1), torch.randn(50, 32)
    layer = to_trees(weights, x, depth=1, trees=4)
    report = distill(layer, weights, x, options=DistillOptions(steps=0))
    assert (report.before, report.losses) == (report.after, ())
    with pytest.raises(ConfigError, match="needs inputs"):
        distill(layer, weights, x[:0])
