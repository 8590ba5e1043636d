from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minigpt.tickets.delta import Change, apply, in_dtype, parameters_of
from minigpt.tickets.delta_merge import combine, merged, overlap
from tests.support.deltas import tiny_ticket


def test_rules_by_hand() -> None:
    differences = torch.tensor([[1.0, 0.0, 3.0, -4.0], [2.0, 5.0, -1.0, 0.0]])
    assert combine(differences, "sum").tolist() == [3.0, 5.0, 2.0, -4.0]
    assert combine(differences, "mean").tolist() == [1.5, 5.0, 1.0, -4.0]
    assert combine(differences, "ties").tolist() == [1.5, 5.0, 3.0, -4.0]  # 3 and -1 elect +


@pytest.mark.parametrize("rule", ["sum", "mean", "ties"])
def test_a_ticket_alone_is_itself_and_the_rest_stays_the_parent(rule: str) -> None:
    model, result, ticket = tiny_ticket(Path("parent"))
    parent = parameters_of(model)
    alone = merged(parent, [ticket.changes], rule)  # type: ignore[arg-type]
    assert all(torch.equal(alone[name], result[name]) for name in parent)
    _, _, other = tiny_ticket(Path("parent"), seed=2)
    both = merged(parent, [ticket.changes, other.changes], rule)  # type: ignore[arg-type]
    for name, before in parent.items():
        touched = torch.zeros(before.numel(), dtype=torch.bool)
        for changes in (ticket.changes, other.changes):
            if name in changes:
                touched[changes[name].positions] = True
        assert torch.equal(both[name].flatten()[~touched], before.flatten()[~touched])


def test_sum_is_what_putting_both_in_gives_where_they_do_not_overlap() -> None:
    model, _, _ = tiny_ticket(Path("parent"))
    parent = in_dtype(parameters_of(model), torch.bfloat16)
    name = "model.layers.0.mlp.up_proj.weight"
    one = {name: Change(positions=torch.tensor([0, 5]), values=torch.tensor([1.0, 2.0], dtype=torch.bfloat16))}
    two = {name: Change(positions=torch.tensor([1, 9]), values=torch.tensor([3.0, 4.0], dtype=torch.bfloat16))}
    both = merged(parent, [one, two], "sum")
    apply(parent, one)
    apply(parent, two)
    assert torch.equal(both[name], parent[name])


def test_overlap_is_the_jaccard_index_beside_its_value_by_chance() -> None:
    parent = {"a": torch.zeros(100)}
    tickets = [{"a": Change(positions=torch.arange(*ends), values=torch.ones(10))} for ends in ((0, 10), (5, 15))]
    jaccard, chance = overlap(*tickets, parent)
    assert jaccard == pytest.approx(5 / 15)
    assert chance == pytest.approx(1 / 19)
