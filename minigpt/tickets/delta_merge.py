"""Merging of delta tickets of one parent: the changes of several domains become one model.

`sum` adds all differences (task arithmetic, Ilharco et al. 2023). `mean` averages them where tickets overlap, and keeps
them where one changes a weight alone. `ties` lets the tickets elect a sign for each weight by the sum of their
differences, and averages those that agree (Yadav et al. 2023, TIES-Merging, eq. 1 and the disjoint mean; trimming is
what a ticket is already).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from minigpt.tickets.delta import Changes

Rule = Literal["sum", "mean", "ties"]
RULES: tuple[Rule, ...] = ("sum", "mean", "ties")


def merged(
    parent: Mapping[str, Tensor], tickets: Sequence[Changes], rule: Rule, scale: float = 1.0
) -> dict[str, Tensor]:
    """Merge tickets of one parent into the tensors of one model.

    Args:
        parent: the parent's tensors by name, in the type that is stored; they are unchanged.
        tickets: the changes of each ticket.
        rule: how differences to the parent are put together.
        scale: factor on the merged difference.

    Returns:
        The tensors of the merged model, in the parent's type.
    """
    result = {}
    for name, before in parent.items():
        touching = [ticket[name] for ticket in tickets if name in ticket]
        if not touching:
            result[name] = before.clone()
            continue
        flat = before.reshape(-1)
        differences = torch.zeros(len(touching), flat.numel(), device=flat.device)
        for row, change in zip(differences, touching, strict=True):
            positions = change.positions.to(flat.device)
            row[positions] = change.applied_to(flat[positions]).float() - flat[positions].float()
        total = flat.float() + scale * combine(differences, rule)
        changed = (differences != 0).any(0)
        result[name] = torch.where(changed, total.to(before.dtype), flat).view(before.shape)
    return result


def combine(differences: Tensor, rule: Rule) -> Tensor:
    """Combine the differences of several tickets weight by weight.

    Args:
        differences: [tickets, n], zero where a ticket changes nothing.
        rule: how they are put together.
    """
    total = differences.sum(0)
    if rule == "sum":
        return total
    taking_part = differences != 0
    if rule == "ties":
        taking_part &= differences.sign() == total.sign()
    kept = torch.where(taking_part, differences, torch.zeros_like(differences))
    return kept.sum(0) / taking_part.sum(0).clamp_min(1)


def overlap(first: Changes, second: Changes, parent: Mapping[str, Tensor]) -> tuple[float, float]:
    """Compare which weights two tickets change.

    Args:
        first: one ticket.
        second: the other.
        parent: the parent's tensors by name, for the sizes.

    Returns:
        The Jaccard index of the changed weights, and its value where positions were drawn by chance with the same
        number in each tensor.
    """
    both = either = expected = 0.0
    for name, tensor in parent.items():
        counts = [len(ticket[name].positions) if name in ticket else 0 for ticket in (first, second)]
        marks = torch.zeros(tensor.numel(), dtype=torch.uint8)
        for ticket in (first, second):
            if name in ticket:
                marks[ticket[name].positions] += 1
        both += float((marks == 2).sum())
        either += float((marks > 0).sum())
        expected += counts[0] * counts[1] / tensor.numel()
    changed = both + either
    return both / max(1.0, either), expected / max(1.0, changed - expected)
