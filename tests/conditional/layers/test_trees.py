"""Trees of neurons: paths, the mask of training, counts, settings."""

from __future__ import annotations

import pytest
import torch

from minigpt.conditional.layers import Trees, TreeSettings
from minigpt.conditional.layers.trees import path_mask
from minigpt.conditional.reference import tree_path
from minigpt.errors import ConfigError
from tests.support.conditional import layer_of, tokens


@pytest.mark.parametrize("case", ["tree of depth 0", "trees", "gated trees", "trees without bias"])
def test_paths_and_masks_are_those_of_the_reference(case: str) -> None:
    layer, x = layer_of(case), tokens(50)
    gate = layer.w_gate
    path = tree_path(x, layer.w_in, layer.b_in, gate, depth=layer.settings.depth)
    assert torch.equal(layer.paths(x), path)
    weights = layer.w_in if gate is None else gate
    scores = torch.einsum("bh,knh->bkn", x, weights)
    if gate is None and layer.b_in is not None:
        scores = scores + layer.b_in
    expected = torch.zeros(scores.shape, dtype=torch.bool).scatter(-1, path, True)
    assert torch.equal(path_mask(scores > 0, layer.settings.depth), expected)


def test_a_score_of_zero_leads_to_the_left_in_both_forms() -> None:
    layer = layer_of("trees")
    with torch.no_grad():
        layer.w_in.zero_()
        layer.b_in.zero_()
    assert layer.paths(tokens(1)).tolist() == [[[0, 1, 3, 7]] * 2]
    layer.training_forward(tokens(1)).sum().backward()
    assert (layer.b_in.grad[0] != 0).nonzero().flatten().tolist() == [0, 1, 3, 7]


def test_every_path_is_taken() -> None:
    layer = layer_of("trees")
    last = layer.paths(tokens(2000))[:, 0, -1]
    assert sorted(last.unique().tolist()) == list(range(7, 15))


def test_the_paper_has_4095_neurons_of_which_12_are_visited() -> None:
    with torch.device("meta"):
        layer = Trees(TreeSettings(hidden_size=768, depth=11))
    assert (layer.total_neurons(), layer.visited_neurons()) == (4095, 12)
    assert layer.visited_weights() == 12 * 2 * 768
    assert layer.total_weights() == 4095 * 2 * 768
    with torch.device("meta"):
        gated = Trees(TreeSettings(hidden_size=576, depth=4, trees=128, gated=True, activation="silu"))
    assert (gated.total_neurons(), gated.visited_neurons()) == (128 * 31, 640)
    assert gated.visited_weights() == 640 * 3 * 576


def test_an_overflow_off_the_path_does_no_harm() -> None:
    layer = layer_of("trees", dtype=torch.float32).train()
    x = tokens(5, dtype=torch.float32)
    off = [node for node in range(15) if node not in layer.paths(x)[:, 0].unique().tolist()]
    with torch.no_grad():
        layer.b_in[0, off] = float("inf")
    assert torch.isfinite(layer(x)).all()


def test_large_batches_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_of("gated trees"), tokens(33)
    whole = layer.hard_forward(x)
    monkeypatch.setattr("minigpt.conditional.layers.trees._GATHERED", 100)
    torch.testing.assert_close(layer.hard_forward(x), whole)


def test_new_weights_have_the_bounds_of_the_paper() -> None:
    torch.manual_seed(0)
    layer = Trees(TreeSettings(hidden_size=64, depth=3, trees=4))
    for value, bound in ((layer.w_in, 64**-0.5), (layer.b_in, 64**-0.5), (layer.w_out, 16**-0.5)):
        assert 0.9 * bound < float(value.detach().abs().max()) <= bound


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": -1}, "depth=-1 must be from 0"),
        ({"depth": 60}, "depth=60 must be from 0 to 20"),
        ({"depth": 1, "trees": 0}, "trees=0 must be at least 1"),
        ({"depth": 1, "activation": "tanh"}, "activation='tanh' is not possible here; choose one of gelu"),
        ({"depth": 1, "hidden_size": 0}, "hidden_size=0 must be"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TreeSettings(**{"hidden_size": 4, **wrong})
