"""Thresholds: quantiles, shares, the greedy split, layout, counts, settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from minigpt.conditional.base import DenseWeights
from minigpt.conditional.layers import ThresholdSettings
from minigpt.conditional.layers.threshold import greedy_shares, quantile_of, threshold_layer, thresholds_for
from minigpt.errors import ConfigError
from tests.support.conditional import HIDDEN, layer_of, tokens


def dense(*, gated: bool = True, neurons: int = 20, seed: int = 0) -> DenseWeights:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / 2

    return DenseWeights(
        w_in=normal(neurons, HIDDEN),
        w_out=normal(neurons, HIDDEN),
        w_gate=normal(neurons, HIDDEN) if gated else None,
        b_in=None if gated else normal(neurons),
        b_out=None if gated else normal(HIDDEN),
        activation="silu" if gated else "gelu",
    )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.731, 1.0])
def test_a_quantile_silences_its_share(share: float) -> None:
    values = tokens(200)
    threshold = quantile_of(values, share)
    silenced = float((values.abs() <= threshold).double().mean())
    assert silenced == pytest.approx(share, abs=1 / values.numel())
    if 0 < share < 1:
        method = np.quantile(values.abs().numpy(), share, method="inverted_cdf")
        assert threshold == pytest.approx(float(method), rel=1e-2)


@pytest.mark.parametrize("gated", [False, True])
def test_shares_hold_on_the_calibration_tokens(gated: bool) -> None:
    weights, x = dense(gated=gated), tokens(300)
    layer = threshold_layer(weights, x, {"in": 0.25, "gate": 0.5, "out": 0.6})
    settings = layer.settings
    assert float((x.abs() > settings.t_in).double().mean()) == pytest.approx(0.75, abs=0.01)
    assert layer.visited_neurons(x) == pytest.approx(0.4 * 20, abs=0.1)
    columns = (0.75 + 0.5 * gated) * HIDDEN * 20 + 0.4 * 20 * HIDDEN
    assert layer.visited_weights(x) == pytest.approx(columns, rel=0.01)
    assert (settings.t_gate > 0) == gated


@pytest.mark.parametrize("gated", [False, True])
def test_no_share_is_the_dense_layer(gated: bool) -> None:
    weights, x = dense(gated=gated), tokens(30)
    shares = {"in": 0.0, "gate": 0.0, "out": 0.0}
    assert thresholds_for(weights, x, shares) == (0.0, 0.0, 0.0)
    layer = threshold_layer(weights, x, shares)
    torch.testing.assert_close(layer.hard_forward(x), weights.forward(x))
    torch.testing.assert_close(layer.training_forward(x), weights.forward(x))


def test_everything_silenced_leaves_the_bias() -> None:
    weights, x = dense(gated=False), tokens(30)
    layer = threshold_layer(weights, x, {"in": 0.0, "out": 1.0})
    torch.testing.assert_close(layer.training_forward(x), weights.b_out.expand(30, HIDDEN))
    # The hard form adds in another order, so that the largest value may round to just above itself.
    layer.settings = replace(layer.settings, t_out=layer.settings.t_out * 1.0001)
    torch.testing.assert_close(layer.hard_forward(x), weights.b_out.expand(30, HIDDEN))


def test_input_matrices_lie_by_column_also_after_loading() -> None:
    layer = layer_of("gated threshold")
    state = {name: value.contiguous() for name, value in layer.state_dict().items()}
    layer.load_state_dict(state)
    assert layer.w_in.T.is_contiguous()
    assert layer.w_gate.T.is_contiguous()
    assert layer.w_out.is_contiguous()


def test_the_greedy_split_reaches_its_share_and_beats_the_even_one() -> None:
    weights, x = dense(seed=3), tokens(200)
    # The gate reads inputs that the rest does not need: its columns are small.
    weights.w_gate.mul_(0.05)
    shares = greedy_shares(weights, x, 0.4)
    assert sum(shares.values()) / 3 == pytest.approx(0.4)
    exact = weights.forward(x)
    even = threshold_layer(weights, x, dict.fromkeys(shares, 0.4))
    greedy = threshold_layer(weights, x, shares)
    assert float((greedy(x) - exact).norm()) < float((even(x) - exact).norm())
    assert set(greedy_shares(dense(gated=False), x, 0.1)) == {"in", "out"}
    assert greedy_shares(weights, x, 0.0) == {"in": 0.0, "gate": 0.0, "out": 0.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"neurons": 0}, "neurons=0"), ({"t_in": -1.0}, "t_in=-1.0"), ({"t_out": float("nan")}, "t_out=nan")],
)
def test_impossible_settings_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ThresholdSettings(**{"hidden_size": 4, "neurons": 8, **wrong})
