"""Masks of weights, by hand and by brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minigpt.errors import ConfigError
from minigpt.tickets import masks
from minigpt.tickets.masks import Pattern
from minigpt.transformer.arch import arch_of, decoder_layers
from tests.support.tiny import tiny_model

GLOBAL, LAMP, LAYER, TWO_OF_FOUR = Pattern("global"), Pattern("lamp"), Pattern("layer"), Pattern("2:4")


def noise(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(6, 8, generator=generator),
        "b": 3 * torch.randn(4, 16, generator=generator),
    }


@pytest.mark.parametrize("name", ["2:2", "4:2", "0:4", "blocks", "2:", ":4", "a:b"])
def test_a_pattern_that_makes_no_sense_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="2:4"):
        Pattern(name)


@pytest.mark.parametrize("remaining", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_a_global_mask_holds_the_largest_weights_of_all(remaining: float) -> None:
    scores = masks.magnitudes(noise())
    kept = masks.keep_best(scores, remaining, GLOBAL)
    flat = torch.cat([scores[name].flatten() for name in scores])
    flags = torch.cat([kept[name].flatten() for name in scores])
    count = round(remaining * len(flat))
    assert int(flags.sum()) == count
    assert sorted(flat[flags].tolist(), reverse=True) == sorted(flat.tolist(), reverse=True)[:count]


def test_a_layer_mask_keeps_the_same_share_of_every_matrix() -> None:
    kept = masks.keep_best(masks.magnitudes(noise()), 0.25, LAYER)
    assert masks.densities(kept) == {"a": 12 / 48, "b": 16 / 64}


def test_the_share_of_a_weight_is_its_square_over_those_that_are_as_large() -> None:
    scores = masks.magnitudes(noise())["a"]
    shares = masks.lamp(scores)
    for weight, share in zip(scores.flatten().tolist(), shares.flatten().tolist(), strict=True):
        above = scores[scores >= weight].double().square().sum()
        assert share == pytest.approx(weight**2 / float(above), rel=1e-6)


def test_a_mask_by_shares_depends_on_no_scale_and_empties_no_matrix() -> None:
    weights = noise()
    kept = masks.keep_best(masks.magnitudes(weights), 2 / 112, LAMP)
    assert {name: int(mask.sum()) for name, mask in kept.items()} == {"a": 1, "b": 1}
    scaled = masks.keep_best(masks.magnitudes({"a": weights["a"], "b": 1e-3 * weights["b"]}), 0.4, LAMP)
    same = masks.keep_best(masks.magnitudes(weights), 0.4, LAMP)
    assert all(torch.equal(same[name], scaled[name]) for name in weights)


@given(st.integers(0, 50), st.sampled_from([(1, 4), (2, 4), (3, 4), (1, 2), (4, 8)]))
def test_groups_keep_exactly_n_of_m_and_the_largest(seed: int, pattern: tuple[int, int]) -> None:
    kept, size = pattern
    weight = noise(seed)["b"].abs()
    mask = masks.best_of_groups(weight, kept, size)
    for scores, flags in zip(weight.view(-1, size), mask.view(-1, size), strict=True):
        assert set(flags.nonzero().flatten().tolist()) == set(scores.topk(kept).indices.tolist())


def test_rows_that_do_not_divide_into_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match="groups of 4"):
        masks.best_of_groups(torch.ones(2, 6), 2, 4)


@pytest.mark.parametrize("pattern", [GLOBAL, LAMP, LAYER])
def test_pruning_further_removes_a_share_of_what_remains_and_nothing_comes_back(pattern: Pattern) -> None:
    kept = masks.full(noise())
    for seed in range(4):
        before = kept
        kept = masks.keep_best(masks.magnitudes(noise(seed)), 0.8 * masks.density(before), pattern, kept)
        assert masks.density(kept) == pytest.approx(0.8 * masks.density(before), abs=0.02)
        assert not any(bool((kept[name] & ~before[name]).any()) for name in kept)


def test_groups_lose_one_weight_a_round_until_n_are_left() -> None:
    kept = masks.full(noise())
    shares = []
    for seed, level in enumerate((0.75, 0.5, 0.4)):
        kept = masks.keep_best(masks.magnitudes(noise(seed)), level, TWO_OF_FOUR, kept)
        shares.append(masks.density(kept))
    assert shares == [0.75, 0.5, 0.5]
    assert all(bool((mask.view(-1, 4).sum(1) == 2).all()) for mask in kept.values())


def test_equal_scores_keep_exactly_the_number_and_the_first() -> None:
    kept = masks.keep_best({"a": torch.ones(2, 5)}, 0.5, GLOBAL)["a"]
    assert kept.flatten().tolist() == [True] * 5 + [False] * 5


@pytest.mark.parametrize("pattern", [GLOBAL, LAYER, TWO_OF_FOUR])
def test_a_random_mask_has_the_same_densities_and_other_weights(pattern: Pattern) -> None:
    ticket = masks.keep_best(masks.magnitudes(noise()), 0.5, pattern)
    drawn = masks.random_like(ticket, 1, pattern)
    assert masks.densities(drawn) == masks.densities(ticket)
    assert any(not torch.equal(drawn[name], ticket[name]) for name in ticket)
    again = masks.random_like(ticket, 1, pattern)
    assert all(torch.equal(drawn[name], again[name]) for name in ticket)
    if pattern is TWO_OF_FOUR:
        assert all(bool((mask.view(-1, 4).sum(1) == 2).all()) for mask in drawn.values())


@pytest.mark.parametrize(
    ("family", "whole"),
    [
        ("mixtral", ["mlp.gate.weight"]),
        ("qwen2_moe", ["mlp.gate.weight", "mlp.shared_expert_gate.weight"]),
        ("granitemoe", ["block_sparse_moe.router.weight"]),
        ("gpt_oss", ["mlp.router.weight", "mlp.experts.gate_up_proj_bias", "mlp.experts.down_proj_bias"]),
        ("mamba", ["mixer.A_log", "mixer.conv1d.weight"]),
        ("lfm2", ["conv.conv.weight"]),
    ],
)
def test_experts_can_be_pruned_and_routers_and_states_stay(family: str, whole: list[str]) -> None:
    model = tiny_model(family, layers=2)
    names = set(masks.prunable(model))
    first = {name for name, weight in model.named_parameters() if weight.ndim > 1 and ".0." in name}
    assert first - names == {name for name in first if name.endswith(tuple(whole))}
    experts = [name for name in names if "experts" in name]
    assert bool(experts) == (arch_of(model).experts is not None)
    layers = [weight for layer in decoder_layers(model) for weight in layer.parameters()]
    assert sum(model.get_parameter(name).numel() for name in names) > 0.85 * sum(weight.numel() for weight in layers)


def test_only_decimal_digits_name_groups() -> None:
    with pytest.raises(ConfigError, match="A pattern is"):
        masks.Pattern("²:4")


def test_the_matrices_of_the_layers_can_be_pruned_and_nothing_else() -> None:
    model = tiny_model(layers=2)
    names = masks.prunable(model)
    assert len(names) == 14 and not any("embed" in name or "norm" in name for name in names)
    kept = masks.keep_best(masks.magnitudes(masks.weights_of(model, names)), 0.3, GLOBAL)
    whole = {name: weight.clone() for name, weight in model.named_parameters()}
    masks.apply_masks(model, kept)
    for name, weight in model.named_parameters():
        expected = whole[name] * kept[name] if name in kept else whole[name]
        assert torch.equal(weight, expected)


@pytest.mark.parametrize("pattern", [GLOBAL, LAMP, LAYER, TWO_OF_FOUR])
def test_every_expert_keeps_its_share(pattern: Pattern) -> None:
    """One expert whose weights are all small is a matrix of its own, and is not starved by the others."""
    weights = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(0))
    weights[0] *= 1e-3
    kept = masks.keep_best(masks.magnitudes({"experts": weights}), 0.5, pattern)
    if pattern is GLOBAL:
        assert masks.smallest(kept) == 0
        return
    assert masks.smallest(kept) > 0.4
    drawn = masks.random_like(kept, 1, pattern)
    shares = [mask.flatten(1).float().mean(1) for mask in (drawn["experts"], kept["experts"])]
    assert torch.equal(*shares)
