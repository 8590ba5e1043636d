"""Statistics on all processes that there are: each takes its turns, and the first one has the result of one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from minigpt.distributed import current
from minigpt.distributed.group import Group
from minigpt.progress import SILENT, Reporter
from minigpt.transformer import stats
from minigpt.transformer.batches import Batch
from minigpt.transformer.shipping import can_ship, ship


def collect(model: Any, batches: Sequence[Batch], *, reporter: Reporter = SILENT) -> stats.ActivationStats:
    """Collect activation statistics (:func:`minigpt.transformer.stats.collect`) on all processes that there are.

    The sums of each batch are added up in the order of the batches, so their number changes no bit of the result.
    """
    group = current()
    if group is None or not can_ship(model):
        return stats.collect(model, batches, reporter=reporter)
    group.announce("statistics")
    ship(group, model)
    return stats.collect(model, _shared_batches(group, batches), group=group, reporter=reporter)


def help_with_statistics(group: Group) -> None:
    """Take part in :func:`collect`."""
    model = ship(group)
    stats.collect(model, _shared_batches(group), group=group)


def _shared_batches(group: Group, batches: Sequence[Batch] = ()) -> list[Batch]:
    """Return the first process's batches in every process."""
    count = group.share(len(batches))
    names = [item.name for item in fields(Batch)]
    return [
        Batch(**{name: group.share_tensor(getattr(batches[n], name) if group.leads else None) for name in names})
        for n in range(count)
    ]
