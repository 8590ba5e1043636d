"""Batches that several processes run in turns, so that results come in the order that one process gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from torch import Tensor

from minigpt.distributed.group import Group
from minigpt.transformer.batches import Batch


def in_turns(
    measure: Callable[[Batch], tuple[Tensor, Tensor]], batches: Iterable[Batch], group: Group | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what is measured on each batch, in order; with a group each process runs every so many-th batch.

    Args:
        measure: returns two tensors of shapes that do not depend on the batch.
        batches: the same in each process.
        group: the processes, or None for one alone.
    """
    if group is None:
        yield from map(measure, batches)
        return
    left = iter(batches)
    while together := list(islice(left, group.world)):
        # A process without a batch of its own in the last round runs one that is not counted.
        results = measure(together[min(group.rank, len(together) - 1)])
        rows = [group.rows(result) for result in results]
        yield from ((rows[0][turn], rows[1][turn]) for turn in range(len(together)))
