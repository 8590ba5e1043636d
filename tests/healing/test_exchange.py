"""Parameters that a process owns, and rows that it reads."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch import nn

from minigpt.healing.data import pad
from minigpt.healing.exchange import Exchange, divide, fitting, owners_of, rows_of
from minigpt.healing.graphs import PART_MULTIPLE, tokens_of_part
from minigpt.healing.recipe import Recipe


def test_the_largest_go_first_to_the_one_that_has_least() -> None:
    assert owners_of([5, 9, 4, 4], 2) == [1, 0, 1, 0]
    assert owners_of([3, 3, 3], 1) == [0, 0, 0]
    assert owners_of([7], 4) == [0]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_every_row_is_read_once_and_loads_are_even(world: int) -> None:
    draw = Random(world)
    lengths = [draw.randint(8, 256) for _ in range(90)]
    parts = divide(lengths, world)
    assert sorted(row for part in parts for row in part) == list(range(90))
    loads = [sum(lengths[row] for row in part) for part in parts]
    assert max(loads) - min(loads) <= max(lengths)
    assert max(loads) <= tokens_of_part(Recipe(tokens_per_step=sum(lengths), window=256), world)


def test_what_does_not_fit_goes_into_a_second_group() -> None:
    assert fitting([0, 1, 2, 3], [5, 5, 3, 2], 10, 9) == [[0, 1], [2, 3]]
    assert fitting([0, 1, 2], [1, 1, 1], 10, 2) == [[0, 1], [2]]
    assert fitting([], [], 10, 2) == []


def test_rows_of_a_batch_keep_their_text() -> None:
    batch = pad([[1, 2, 3], [4, 5], [6, 7, 8, 9]])
    part = rows_of(batch, [2, 0])
    assert part.lengths.tolist() == [4, 3]
    assert part.ids[0, :4].tolist() == [6, 7, 8, 9]
    assert part.origins is None


def test_a_process_alone_owns_all_and_reads_all() -> None:
    parameters = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(4))]
    exchange = Exchange(parameters)
    batch = pad([[1, 2, 3]])
    assert exchange.own == parameters
    assert list(exchange.parts(batch)) == [(batch, 1.0)]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 2.0)
    exchange.clip(1.0)
    assert sum(float(parameter.grad.square().sum()) for parameter in parameters) == pytest.approx(1.0, rel=1e-4)


def test_a_part_has_a_little_more_room_than_its_share() -> None:
    settings = Recipe(tokens_per_step=16384, window=256)
    assert tokens_of_part(settings, 1) == 16384
    assert tokens_of_part(settings, 4) % PART_MULTIPLE == 0
    assert 4096 < tokens_of_part(settings, 4) < 4352
    assert tokens_of_part(Recipe(tokens_per_step=512, window=512), 4) == 512
