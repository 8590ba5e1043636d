"""Which layers become conditional: the order by loss for each microsecond, and how many a limit allows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st

from minigpt.conditional.choose import LayerCost, longest_within, ranked, times_of
from minigpt.conditional.conversions import leaf_depth, tree_depth


def cost(layer: int, loss: float, saved: float) -> LayerCost:
    return LayerCost(layer=layer, loss=loss, dense_us=100.0, conditional_us=100.0 - saved)


def test_layers_are_ordered_by_loss_for_each_microsecond() -> None:
    costs = [cost(0, 0.2, 10), cost(1, 0.1, 1), cost(2, 0.1, 10), cost(3, 0.3, 60), cost(4, 0.01, -5), cost(5, 0.0, 0)]
    assert ranked(costs) == (3, 2, 0, 1)


def test_layers_that_lower_the_loss_come_first() -> None:
    assert ranked([cost(0, 1e-6, 50), cost(1, -0.1, 5), cost(2, -0.001, 20)]) == (2, 1, 0)


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0, 10))
def test_the_longest_front_within_the_limit_is_taken(losses: list[float], limit: float) -> None:
    def loss_of(order: Sequence[int]) -> float:
        return sum(losses[index] for index in order)

    order = tuple(range(len(losses)))
    taken = longest_within(order, limit, loss_of)
    within = [count for count in range(len(order) + 1) if loss_of(order[:count]) <= limit]
    assert len(taken) == min(max(max(within), 1), len(order))
    assert taken == order[: len(taken)]


def test_modules_are_timed_by_turns() -> None:
    calls: list[tuple[str, torch.Size]] = []

    def module(name: str) -> object:
        return lambda token: calls.append((name, token.shape))

    times = times_of([module("a"), module("b")], torch.randn(3, 4), rounds=2)
    assert [name for name, _ in calls] == ["a", "b"] * 4
    assert {shape for _, shape in calls} == {torch.Size([1, 1, 4])}
    assert len(times) == 2 and min(times) > 0


def test_depths_keep_about_the_neurons_of_the_dense_layer() -> None:
    assert [leaf_depth(share) for share in (1, 0.5, 0.25, 0.2, 0.125, 0.003)] == [0, 1, 2, 2, 3, 8]
    for share in (1.0, 0.5, 0.25, 0.1, 0.01):
        depth = tree_depth(share)
        assert (2 ** (depth + 1) - 1) / (depth + 1) <= 1.001 / share
        assert (2 ** (depth + 2) - 1) / (depth + 2) > 1 / share
