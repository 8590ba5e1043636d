"""Wanda and SparseGPT against their formulas, written out, and against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from minigpt.tickets.masks import Pattern, densities, prunable
from minigpt.tickets.oneshot import ONE_SHOT, prune_in_one_shot, sparsegpt, wanda_mask, wanda_scores
from tests.support.archsuite import random_batch
from tests.support.tiny import tiny_model

LAYER, TWO_OF_FOUR = Pattern("layer"), Pattern("2:4")


def inputs(columns: int, count: int = 200, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(columns, columns, generator=generator)
    return torch.randn(count, columns, generator=generator) @ mixed


def test_wanda_is_magnitude_times_the_norm_of_the_input_in_each_row() -> None:
    x, weight = inputs(8), torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    scores = wanda_scores(weight, x.T @ x)
    expected = np.abs(weight.numpy()) * np.linalg.norm(x.numpy(), axis=0)
    assert scores.numpy() == pytest.approx(expected, rel=1e-4)
    mask = wanda_mask(weight, x.T @ x, 0.5, LAYER)
    for row, flags in zip(expected, mask.numpy(), strict=True):
        assert set(np.flatnonzero(flags)) == set(np.argsort(-row)[:4])


def test_sparsegpt_follows_the_surgeon_column_by_column() -> None:
    """The optimal brain surgeon (Hassibi et al. 1993), by the inverse of the Hessian that is left."""
    x, weight = inputs(6), torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gram = (x.T @ x).double()
    new, mask = sparsegpt(weight.float(), gram.float(), 0.5, LAYER)
    hessian = gram + 0.01 * gram.diagonal().mean() * torch.eye(6, dtype=torch.float64)
    expected = weight.clone()
    for column in range(6):
        inverse = torch.linalg.inv(hessian[column:, column:])
        gone = ~mask[:, column]
        shift = expected[:, column] * gone / inverse[0, 0]
        expected[:, column:] -= shift[:, None] * inverse[0][None, :]
    assert new.double().numpy() == pytest.approx(expected.numpy(), abs=1e-3)
    assert torch.equal(new != 0, mask)


@pytest.mark.parametrize(("pattern", "columns"), [("2:3", 258), ("1:2", 256), ("60:150", 300)])
def test_groups_of_any_size_lie_in_one_block(pattern: str, columns: int) -> None:
    x, weight = inputs(columns, 400), torch.randn(6, columns, generator=torch.Generator().manual_seed(2))
    new, mask = sparsegpt(weight, x.T @ x, 0.5, Pattern(pattern))
    kept, size = map(int, pattern.split(":"))
    assert bool((mask.view(6, -1, size).sum(2) == kept).all()) and torch.equal(new != 0, mask)


def test_sparsegpt_leaves_a_smaller_error_than_wanda_and_wanda_than_magnitude() -> None:
    x, weight = (
        inputs(64, 500) * torch.linspace(0.1, 3, 64),
        torch.randn(32, 64, generator=torch.Generator().manual_seed(3)),
    )
    gram = x.T @ x

    def error(pruned: torch.Tensor) -> float:
        gap = (weight - pruned).double()
        return float(((gap @ gram.double()) * gap).sum())

    for pattern in (LAYER, TWO_OF_FOUR):
        surgeon = error(sparsegpt(weight, gram, 0.5, pattern)[0])
        wanda = error(weight * wanda_mask(weight, gram, 0.5, pattern))
        plain = error(weight * wanda_mask(weight, torch.eye(64), 0.5, pattern))
        assert surgeon < wanda < plain


@pytest.mark.parametrize("pattern", [LAYER, TWO_OF_FOUR])
def test_sparsegpt_gives_nothing_back_to_weights_that_are_gone(pattern: Pattern) -> None:
    """Each input has a near copy in another group and block, to which the removal of the first moves weight."""
    x, weight = inputs(128, 500), torch.randn(32, 256, generator=torch.Generator().manual_seed(3))
    x = torch.cat((x, x + 0.1 * inputs(128, 500, seed=1)), dim=1)
    gram = x.T @ x
    there = wanda_mask(weight, gram, 0.75, Pattern("3:4") if pattern is TWO_OF_FOUR else LAYER)
    new, mask = sparsegpt(weight * there, gram, 0.5, pattern, there)
    assert not (mask & ~there).any() and torch.equal(new != 0, mask)
    assert int(mask.sum()) == 32 * 256 // 2

    def error(pruned: torch.Tensor) -> float:
        gap = (weight * there - pruned).double()
        return float(((gap @ gram.double()) * gap).sum())

    assert error(new) < error(weight * mask)
    alone, _ = sparsegpt(weight * there, gram, 0.5, pattern)
    assert (alone != 0)[~there].any()  # without the mask weights that were moved from zero come back


@pytest.mark.parametrize("name", list(ONE_SHOT))
@pytest.mark.parametrize("pattern", [LAYER, TWO_OF_FOUR])
def test_every_matrix_of_a_model_gets_the_density_and_only_these(name: str, pattern: Pattern) -> None:
    model = tiny_model(layers=2)
    before = {key: value.clone() for key, value in model.named_parameters()}
    mask = prune_in_one_shot(model, [random_batch()], name, 0.5, pattern)
    assert set(mask) == set(prunable(model))
    assert all(value == pytest.approx(0.5, abs=0.02) for value in densities(mask).values())
    for key, value in model.named_parameters():
        if key in mask:
            assert not value[~mask[key]].any() and bool(value.any())
        else:
            assert torch.equal(value, before[key])


def test_later_layers_read_what_the_pruned_earlier_ones_give() -> None:
    """The inputs of the second layer come from the pruned first one: measured again they are the same."""
    from minigpt.transformer.grams import gram_matrices

    model = tiny_model(layers=2)
    whole = tiny_model(layers=2)
    mask = prune_in_one_shot(model, [random_batch()], "wanda", 0.5, LAYER)
    name = "model.layers.1.self_attn.q_proj.weight"
    weight = dict(whole.named_parameters())[name].detach()
    gram = gram_matrices(model, [random_batch()], layer=1)[name]
    dense = gram_matrices(whole, [random_batch()], layer=1)[name]
    assert torch.equal(mask[name], wanda_mask(weight, gram, 0.5, LAYER))
    assert not torch.equal(mask[name], wanda_mask(weight, dense, 0.5, LAYER))


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
def test_every_layer_runs_twice_however_many_there_are(name: str) -> None:
    model, calls = tiny_model(layers=3), [0, 0, 0]

    def count(index: int) -> Any:
        def hook(*_: Any) -> None:
            calls[index] += 1

        return hook

    for index, layer in enumerate(model.model.layers):
        layer.register_forward_hook(count(index))
    prune_in_one_shot(model, [random_batch(), random_batch(seed=1)], name, 0.5, LAYER)
    assert calls == [6, 6, 6]  # two passes of two batches, and one that notes the layers' arguments and runs none
