"""Layers with sparse values: penalty, k largest, counts, settings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from minigpt.conditional.layers import Relu, ReluSettings
from minigpt.errors import ConfigError
from tests.support.conditional import CASES, HIDDEN, layer_of, tokens


@pytest.mark.parametrize("case", ["relu", "gated relu", "drelu", "top-k", "top-k of relu"])
def test_counts_by_brute_force(case: str) -> None:
    layer, x = layer_of(case), tokens(25)
    gates = None if layer.w_gate is None else x @ layer.w_gate.T
    scores = x @ layer.w_in.T + (0 if layer.b_in is None else layer.b_in)
    relu = torch.relu
    act = torch.nn.functional.silu if case == "top-k" else relu
    values = act(scores) if gates is None else act(gates) * (relu(scores) if case == "drelu" else scores)
    total_neurons = total_rows = 0
    for token in range(25):
        visited = int((values[token] != 0).sum())
        visited = min(visited, layer.settings.top_k or visited)
        total_neurons += visited
        opened = 9 if gates is None or case == "top-k" else int((gates[token] > 0).sum())
        total_rows += visited + (9 if gates is None else 9 + opened)
    assert layer.visited_neurons(x) == pytest.approx(total_neurons / 25)
    assert layer.visited_weights(x) == pytest.approx(HIDDEN * total_rows / 25)


def test_top_k_visits_k_and_top_k_of_relu_at_most_k() -> None:
    assert layer_of("top-k").visited_neurons(tokens(50)) == 3.0
    assert layer_of("top-k of relu").visited_neurons(tokens(50)) <= 2.0


def test_the_penalty_is_the_mean_absolute_value() -> None:
    layer = Relu(replace(CASES["gated relu"], l1=2.0)).double().train()
    x = tokens(10)
    layer(x)
    values = torch.relu(x @ layer.w_gate.T) * (x @ layer.w_in.T)
    torch.testing.assert_close(layer.penalty(), 2.0 * values.abs().mean())
    assert float(layer_of("relu").penalty()) == 0.0


def test_following_the_penalty_closes_neurons() -> None:
    torch.manual_seed(0)
    layer = Relu(ReluSettings(hidden_size=HIDDEN, neurons=40, l1=1.0, input_bias=True)).double().train()
    x = tokens(100)
    before = layer.visited_neurons(x)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(40):
        layer(x)
        optimizer.zero_grad()
        layer.penalty().backward()
        optimizer.step()
    assert layer.visited_neurons(x) < 0.7 * before


def test_pairs_are_gathered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_of("drelu"), tokens(33)
    whole = layer.hard_forward(x)
    monkeypatch.setattr("minigpt.conditional.layers.relu._GATHERED", 50)
    torch.testing.assert_close(layer.hard_forward(x), whole)


def test_the_count_needs_tokens() -> None:
    with pytest.raises(ConfigError, match="depends on the text"):
        layer_of("relu").visited_neurons()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"neurons": 0}, "neurons=0"),
        ({"l1": -0.1}, "l1=-0.1"),
        ({"top_k": 0}, "top_k=0 must be from 1 to the number of neurons, 8"),
        ({"top_k": 9}, "top_k=9"),
        ({"activation": "drelu"}, "needs gated=True"),
        ({"activation": "silu"}, "is never zero.*set top_k"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReluSettings(**{"hidden_size": 4, "neurons": 8, **wrong})
