"""Overlap of tickets against chance."""

from __future__ import annotations

import pytest
import torch

from minigpt.tickets import overlap
from minigpt.tickets.masks import Pattern, random_like


def ticket(seed: int, share: float = 0.3, matrices: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {str(index): torch.rand(40, 50, generator=generator) < share for index in range(matrices)}


def test_jaccard_by_hand() -> None:
    first = {"a": torch.tensor([[True, True, False, False]])}
    second = {"a": torch.tensor([[True, False, True, False]])}
    table = overlap.counts(first, second)
    assert overlap.jaccard(table) == pytest.approx(1 / 3)
    assert overlap.chance(table) == pytest.approx(1 / 3)
    assert overlap.mask_distance(first, second) == 0.5


def test_independent_masks_are_at_chance_and_the_interval_holds_it() -> None:
    result = overlap.overlap(ticket(0), ticket(1))
    assert result.ratio.low < 1.0 < result.ratio.high
    assert result.jaccard.value == pytest.approx(result.chance, rel=0.05)
    assert result.chance == pytest.approx(0.09 / (0.6 - 0.09), rel=0.05)


def test_masks_that_share_a_half_are_far_above_chance() -> None:
    first, other = ticket(0), ticket(1)
    half = {name: mask.clone() for name, mask in other.items()}
    for name in half:
        half[name][:20] = first[name][:20]
    result = overlap.overlap(first, half)
    assert result.ratio.low > 2
    assert overlap.overlap(first, first).jaccard.value == 1.0


def test_chance_knows_the_densities_of_the_matrices() -> None:
    """Masks with the same unequal densities overlap more than ones of the same overall density; that is no finding."""
    sizes = {"dense": 0.9, "sparse": 0.05}
    first = {
        name: torch.rand(200, 100, generator=torch.Generator().manual_seed(1)) < share for name, share in sizes.items()
    }
    second = random_like(first, 2, Pattern("layer"))
    result = overlap.overlap(first, second)
    assert result.jaccard.value == pytest.approx(result.chance, rel=0.03)
    density = sum(float(mask.float().mean()) for mask in first.values()) / 2
    assert result.chance > 1.4 * density / (2 - density)


def test_the_core_is_what_all_share() -> None:
    tickets = [ticket(seed, 0.5) for seed in range(3)]
    share, expected = overlap.core_share(tickets)
    assert expected == pytest.approx(0.125, rel=0.05)
    assert share == pytest.approx(expected, rel=0.05)
    assert overlap.core_share([tickets[0]] * 3)[0] == pytest.approx(0.5, rel=0.05)


def test_a_ticket_has_settled_when_the_last_masks_are_close() -> None:
    steady, other = ticket(0), ticket(1)
    assert not overlap.has_settled([steady] * 4, 0.1)
    assert overlap.has_settled([other, *[steady] * 5], 0.1)
    assert not overlap.has_settled([steady, steady, other, steady, steady], 0.1)


def test_seeds_give_the_interval_of_student() -> None:
    """Of 1, 2, 3 the standard error is 0.5774 and t(0.975, 2) is 4.3027."""
    result = overlap.over_seeds([1.0, 2.0, 3.0])
    assert (result.low, result.high) == (pytest.approx(2 - 2.4841, abs=1e-3), pytest.approx(2 + 2.4841, abs=1e-3))
    assert overlap.over_seeds([0.4]).low == 0.4
