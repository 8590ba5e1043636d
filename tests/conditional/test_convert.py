"""Conversion of dense layers: neurons that are taken over, exact limits, and errors against random layers."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from minigpt.conditional.base import DenseWeights
from minigpt.conditional.convert import relative_error, to_leaves, to_relu, to_trees
from minigpt.conditional.layers import Leaves, Trees
from minigpt.errors import ConfigError

HIDDEN, NEURONS = 8, 32


def dense(*, gated: bool, seed: int = 0) -> DenseWeights:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return DenseWeights(
        w_in=normal(NEURONS, HIDDEN),
        w_out=normal(NEURONS, HIDDEN),
        activation="silu" if gated else "gelu",
        w_gate=normal(NEURONS, HIDDEN) if gated else None,
        b_in=None if gated else normal(NEURONS),
        b_out=None if gated else normal(HIDDEN),
    )


def inputs(count: int, *, seed: int = 5) -> Tensor:
    return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def neurons_of(rows: Tensor, weights: DenseWeights) -> Tensor:
    """The neuron of the dense layer that each row was copied from."""
    distance = torch.cdist(rows.reshape(-1, HIDDEN), weights.w_in)
    assert distance.amin(1).max().item() < 1e-6
    return distance.argmin(1).view(rows.shape[:-1])


@pytest.mark.parametrize("gated", [False, True])
def test_as_many_roots_as_neurons_are_the_dense_layer(gated: bool) -> None:
    weights, x = dense(gated=gated), inputs(50)
    layer = to_trees(weights, x, depth=0, trees=NEURONS)
    assert sorted(neurons_of(layer.w_in, weights).flatten().tolist()) == list(range(NEURONS))
    new = inputs(20, seed=6)
    torch.testing.assert_close(layer.hard_forward(new), weights.forward(new))
    assert relative_error(layer, weights, new) < 1e-20


@pytest.mark.parametrize("gated", [False, True])
def test_trees_hold_neurons_of_the_dense_layer_and_tokens_rarely_meet_one_twice(gated: bool) -> None:
    weights, x = dense(gated=gated), inputs(400)
    layer = to_trees(weights, x, depth=2, trees=4)
    neurons = neurons_of(layer.w_in, weights)
    torch.testing.assert_close(layer.w_out, weights.w_out[neurons])
    visited = torch.cat([neurons[tree][layer.paths(x)[:, tree]] for tree in range(4)], dim=1)
    distinct = sum(len(set(row)) for row in visited.tolist()) / len(x)
    # 12 neurons drawn at random from 32, with repeats, are 10.1 distinct ones in the mean.
    assert distinct > 11.3
    torch.testing.assert_close(layer.hard_forward(x).mean(0), weights.forward(x).mean(0))


def test_the_roots_are_the_neurons_of_most_energy_and_evenness() -> None:
    # A mean that is not zero, so that some neurons send nearly all tokens to one side.
    weights, x = dense(gated=True), inputs(400) + 1.0
    layer = to_trees(weights, x, depth=1, trees=8)
    gates = x @ weights.w_gate.T
    values = torch.nn.functional.silu(gates) * (x @ weights.w_in.T)
    share = (gates > 0).double().mean(0)
    score = values.square().sum(0) * weights.w_out.square().sum(1) * 4 * share * (1 - share)
    assert neurons_of(layer.w_in[:, 0], weights).tolist() == score.argsort(descending=True)[:8].tolist()


@pytest.mark.parametrize("gated", [False, True])
def test_greedy_trees_are_better_than_random_neurons(gated: bool) -> None:
    weights, x, new = dense(gated=gated), inputs(2000), inputs(500, seed=9)
    layer = to_trees(weights, x, depth=2, trees=4)
    error = relative_error(layer, weights, new)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        places = torch.stack([torch.randperm(NEURONS, generator=generator)[:7] for _ in range(4)])
        random = Trees(layer.settings).double()
        with torch.no_grad():
            for name in ("w_in", "b_in", "w_gate", "w_out"):
                if getattr(random, name) is not None:
                    getattr(random, name).copy_(getattr(weights, name)[places])
            random.b_out.zero_()
            random.b_out.copy_((weights.forward(x) - random.hard_forward(x)).mean(0))
        assert error < relative_error(random, weights, new)
    assert error < 1.0


@pytest.mark.parametrize("gated", [False, True])
def test_one_leaf_of_all_neurons_is_the_dense_layer(gated: bool) -> None:
    weights, x = dense(gated=gated), inputs(50)
    layer = to_leaves(weights, x, depth=0, leaf_width=NEURONS)
    new = inputs(20, seed=6)
    torch.testing.assert_close(layer.hard_forward(new), weights.forward(new))
    torch.testing.assert_close(layer.training_forward(new), weights.forward(new))


def test_leaves_get_equal_shares_of_the_calibration_tokens() -> None:
    weights, x = dense(gated=True), inputs(512)
    layer = to_leaves(weights, x, depth=3, leaf_width=4, sharpness=4.0)
    assert Counter(layer.leaf_of(x).tolist()) == dict.fromkeys(range(8), 64)
    scores = x @ layer.w_node[0] + layer.b_node[0]
    assert scores.std(correction=0).item() == pytest.approx(4.0)


def test_leaves_separate_what_different_neurons_do() -> None:
    # Four groups of inputs, and four groups of neurons of which each answers to one group of inputs.
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.eye(4, HIDDEN, dtype=torch.float64)
    group = torch.arange(800) % 4
    x = centres[group] + 0.3 * torch.randn(800, HIDDEN, generator=generator, dtype=torch.float64)
    w_in = 3 * torch.eye(4, HIDDEN, dtype=torch.float64).repeat_interleave(8, 0)
    w_in[:, 4:] = torch.randn(NEURONS, 4, generator=generator, dtype=torch.float64)
    w_out = torch.randn(NEURONS, HIDDEN, generator=generator, dtype=torch.float64)
    w_in[:, :4] -= 1.0
    weights = DenseWeights(w_in=w_in, w_out=w_out, activation="relu")
    layer = to_leaves(weights, x, depth=2, leaf_width=8)
    leaf = layer.leaf_of(x)
    assert all(len(leaf[group == index].unique()) == 1 for index in range(4))
    assert relative_error(layer, weights, x) < 1e-3


def test_refitted_leaves_are_better_than_copied_neurons() -> None:
    weights, x, new = dense(gated=True), inputs(4000), inputs(500, seed=9)
    layer = to_leaves(weights, x, depth=2, leaf_width=12)
    copied = Leaves(layer.settings).double()
    copied.load_state_dict(layer.state_dict())
    with torch.no_grad():
        copied.w_out.copy_(weights.w_out[neurons_of(layer.w_in, weights)])
    error = relative_error(layer, weights, new)
    assert error < 0.8
    assert error < relative_error(copied, weights, new)


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_tokens_than_leaves_still_give_a_layer(count: int) -> None:
    weights, x = dense(gated=True), inputs(count)
    for layer in (to_leaves(weights, x, depth=3, leaf_width=4), to_trees(weights, x, depth=3, trees=2)):
        assert torch.isfinite(layer.hard_forward(inputs(20, seed=3))).all()


def test_a_copy_with_relu_is_exact_for_relu_and_one_with_all_of_the_k_for_others() -> None:
    weights, x = dense(gated=True), inputs(20)
    layer = to_relu(weights, top_k=NEURONS)
    torch.testing.assert_close(layer.hard_forward(x), weights.forward(x))
    sparse = to_relu(weights, activation="drelu", l1=0.1)
    assert sparse.visited_neurons(x) < NEURONS / 2
    relu = to_relu(DenseWeights(w_in=weights.w_in, w_out=weights.w_out, activation="relu"))
    torch.testing.assert_close(relu.hard_forward(x), torch.relu(x @ weights.w_in.T) @ weights.w_out)


def test_conversion_changes_neither_the_weights_nor_the_inputs() -> None:
    weights, x = dense(gated=True), inputs(30)
    before = [x.clone(), weights.w_in.clone(), weights.w_out.clone()]
    to_trees(weights, x, depth=1, trees=2)
    to_leaves(weights, x, depth=1, leaf_width=2)
    assert all(torch.equal(one, other) for one, other in zip(before, [x, weights.w_in, weights.w_out], strict=True))


def test_what_cannot_be_is_refused() -> None:
    weights = dense(gated=True)
    with pytest.raises(ConfigError, match="11 trees of depth 2 visit 33 neurons and the layer has 32"):
        to_trees(weights, inputs(5), depth=2, trees=11)
    with pytest.raises(ConfigError, match="leaf_width=33 is more than the layer's 32"):
        to_leaves(weights, inputs(5), depth=1, leaf_width=33)
    for convert in (
        lambda: to_trees(weights, inputs(0), depth=1, trees=1),
        lambda: to_leaves(weights, inputs(0), depth=1, leaf_width=1),
    ):
        with pytest.raises(ConfigError, match="needs calibration inputs"):
            convert()
