"""Leaves: mixture, penalty, region leak, balance, counts, settings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from minigpt.conditional.layers import LeafSettings, Leaves
from minigpt.conditional.layers.leaves import balance_of, decision_entropy, mixture_of
from minigpt.conditional.reference import leaf_mixture, leaf_of
from minigpt.errors import ConfigError
from tests.support.conditional import CASES, layer_of, tokens


@pytest.mark.parametrize("case", ["leaf of depth 0", "leaves", "gated leaves"])
def test_leaves_and_mixtures_are_those_of_the_reference(case: str) -> None:
    layer, x = layer_of(case), tokens(60)
    nodes, depth = (layer.w_node, layer.b_node), layer.settings.depth
    assert torch.equal(layer.leaf_of(x), leaf_of(x, *nodes, depth=depth))
    mixture = mixture_of(torch.sigmoid(x @ layer.w_node.T + layer.b_node), depth)
    torch.testing.assert_close(mixture, leaf_mixture(x, *nodes, depth=depth))
    torch.testing.assert_close(mixture.sum(1), torch.ones(60, dtype=torch.float64))


def test_a_score_of_zero_leads_to_the_right() -> None:
    layer = layer_of("leaves")
    with torch.no_grad():
        layer.w_node.zero_()
        layer.b_node.zero_()
    assert layer.leaf_of(tokens(2)).tolist() == [7, 7]


def test_sure_decisions_make_training_and_inference_agree_output_biases_included() -> None:
    layer, x = layer_of("leaves"), tokens(50)
    with torch.no_grad():
        layer.w_node.mul_(1e5)
        layer.b_node.mul_(1e5)
    torch.testing.assert_close(layer.training_forward(x), layer.hard_forward(x))
    with torch.no_grad():
        layer.b_out.add_(1.0)
    torch.testing.assert_close(layer.training_forward(x), layer.hard_forward(x))


def test_entropy_by_hand() -> None:
    right = torch.tensor([[0.5, 0.25], [1.0, 0.0]])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert float(decision_entropy(right)) == pytest.approx((math.log(2) + entropy) / 4, abs=2e-5)
    assert float(decision_entropy(torch.zeros(5, 0))) == 0.0
    sure = torch.tensor([[0.0, 1.0]], requires_grad=True)
    decision_entropy(sure).backward()
    assert torch.isfinite(sure.grad).all()


def test_balance_by_hand() -> None:
    even = torch.full((4, 4), 0.25)
    assert float(balance_of(even, torch.arange(4))) == pytest.approx(1.0)
    one = torch.eye(4)[[2, 2, 2]]
    assert float(balance_of(one, torch.tensor([2, 2, 2]))) == pytest.approx(4.0)
    mixed = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    # f = (2/3, 1/3), P = (0.6, 0.4): 2 (0.4 + 0.4 / 3)
    assert float(balance_of(mixed, torch.tensor([0, 0, 1]))) == pytest.approx(2 * (0.4 + 0.4 / 3))


def test_the_penalty_is_the_weighted_sum() -> None:
    x = tokens(30)
    plain = layer_of("leaves").train()
    plain(x)
    assert float(plain.penalty()) == 0.0
    right = torch.sigmoid(x @ plain.w_node.T + plain.b_node)
    entropy = torch.distributions.Bernoulli(right).entropy().mean()
    balance = 8 * (torch.bincount(plain.leaf_of(x), minlength=8) / 30 * mixture_of(right, 3).mean(0)).sum()
    settings = replace(CASES["leaves"], hardening=3.0, balance=0.5)
    layer = Leaves(settings).double()
    layer.load_state_dict(plain.state_dict())
    layer(x)
    torch.testing.assert_close(layer.penalty(), 3.0 * entropy + 0.5 * balance)


@pytest.mark.parametrize("name", ["hardening", "balance"])
def test_following_the_penalty_does_what_it_is_for(name: str) -> None:
    torch.manual_seed(0)
    layer = Leaves(LeafSettings(hidden_size=6, depth=2, leaf_width=2, **{name: 1.0})).double().train()
    with torch.no_grad():
        layer.b_node.fill_(1.0)  # most tokens go to the last leaf
    x = tokens(200)

    def measure() -> float:
        if name == "hardening":
            return decision_entropy(torch.sigmoid(x @ layer.w_node.T + layer.b_node)).item()
        return float(torch.bincount(layer.leaf_of(x), minlength=4).max()) / 200

    before = measure()
    optimizer = torch.optim.Adam([layer.w_node, layer.b_node], lr=0.05)
    for _ in range(60):
        layer(x)
        optimizer.zero_grad()
        layer.penalty().backward()
        optimizer.step()
    assert measure() < 0.6 * before


def test_region_leak_swaps_decisions_in_training_only() -> None:
    base = layer_of("leaves")
    always = Leaves(replace(CASES["leaves"], region_leak=1.0)).double()
    always.load_state_dict(base.state_dict())
    x = tokens(20)
    mirrored = Leaves(CASES["leaves"]).double()
    mirrored.load_state_dict(base.state_dict())
    with torch.no_grad():
        mirrored.w_node.neg_()
        mirrored.b_node.neg_()
    torch.testing.assert_close(always.train()(x), mirrored.train()(x))
    torch.testing.assert_close(always.eval()(x), base.eval()(x))
    half = Leaves(replace(CASES["leaves"], region_leak=0.5)).double()
    half.load_state_dict(base.state_dict())
    torch.manual_seed(0)
    mean = torch.stack([half.training_forward(x) for _ in range(4000)]).mean(0)
    # With leaks of one half every decision is 1/2 in the mean, and levels are independent: a plain mean of leaves.
    with torch.no_grad():
        half.w_node.zero_()
        half.b_node.zero_()
    half.settings = replace(half.settings, region_leak=0.0)
    torch.testing.assert_close(mean, half.training_forward(x), atol=0.02, rtol=0)


def test_depth_0_is_a_dense_layer_in_both_forms() -> None:
    settings = LeafSettings(hidden_size=6, depth=0, leaf_width=5, hardening=1.0, balance=2.0)
    layer = Leaves(settings).double().train()
    x = tokens(9)
    dense = torch.nn.functional.gelu(x @ layer.w_in[0].T + layer.b_in[0]) @ layer.w_out[0] + layer.b_out[0]
    torch.testing.assert_close(layer(x), dense)
    torch.testing.assert_close(layer.hard_forward(x), dense)
    assert layer.penalty().item() == pytest.approx(2.0)
    (layer(x).sum() + layer.penalty()).backward()


def test_counts() -> None:
    with torch.device("meta"):
        layer = Leaves(LeafSettings(hidden_size=10, depth=3, leaf_width=4, gated=True, activation="silu"))
    assert (layer.total_neurons(), layer.visited_neurons()) == (32, 4)
    assert layer.visited_weights() == (3 + 4 * 3) * 10
    assert layer.total_weights() == (7 + 32 * 3) * 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 21}, "depth=21"),
        ({"leaf_width": 0}, "leaf_width=0"),
        ({"hardening": -1.0}, "hardening=-1.0"),
        ({"balance": -1.0}, "balance=-1.0"),
        ({"region_leak": 1.5}, "region_leak=1.5 must be from 0 to 1"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LeafSettings(**{"hidden_size": 4, "depth": 1, "leaf_width": 2, **wrong})
