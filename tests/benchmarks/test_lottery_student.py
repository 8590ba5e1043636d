"""The benchmark of rounds on a small student."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.support.scripts import script


@pytest.fixture(scope="module")
def student() -> Iterator[Any]:
    with script("lottery_student") as module:
        yield module


def test_the_teacher_itself_has_no_error_and_training_heals_a_mask(student: Any) -> None:
    world = student.World(0)
    assert world.measure(world.teacher) == 0
    masks = student.keep_best(student.magnitudes(world.teacher), 0.3, student.Pattern("layer"))
    pruned = {name: weight * masks[name] for name, weight in world.teacher.items()}
    healed, steps = student.trained(world, world.teacher, masks, 40, 3e-3)
    assert steps == 40
    assert world.measure(healed) < 0.9 * world.measure(pruned)
    assert not any(healed[name][~mask].any() for name, mask in masks.items())


@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
def test_a_ticket_keeps_the_share(student: Any, criterion: str) -> None:
    weights, _ = student.ticket(student.World(0), 0.25, (0, 2, 2), criterion, 1e-3)
    shares = [float(weight.ne(0).float().mean()) for weight in weights.values()]
    assert shares == pytest.approx([0.25] * 3, abs=0.002)


def test_a_settled_mask_gives_its_steps_to_the_last_training(student: Any) -> None:
    world = student.World(0)
    early, last = student.ticket(world, 0.25, (40, 40, 40), "magnitude", 1e-3, 0.9)
    assert last == 40 + 2 * 30  # five looks, one every two steps
    _, late = student.ticket(world, 0.25, (40, 40, 40), "magnitude", 1e-3, 1e-9)
    assert 40 <= late < last
    assert world.measure(early) > 0


def test_steps_of_a_weight_grow_as_the_mask_gets_sparser(student: Any) -> None:
    sizes = torch.tensor([row["step_of_a_weight"] for row in student.update_rows()])
    assert bool((sizes.diff() > 0).all())
