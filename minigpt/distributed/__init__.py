"""Several processes that build one model together: who is who, what they exchange, and how they end.

The first process runs the build as if it were alone. The others wait for jobs (:mod:`minigpt.distributed.jobs`): a pass
over calibration text, a training run, an evaluation, sampling. So whatever is decided, written or printed is done in
one place, and no process can take another branch than the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minigpt.distributed.place import Place

if TYPE_CHECKING:
    from minigpt.distributed.group import Group

__all__ = ["Place", "current", "set_current"]

_current: list[Any] = []


def current() -> Group | None:
    """Return the group of processes that this one belongs to, or None if it works alone."""
    return _current[-1] if _current else None


def set_current(group: Group | None) -> None:
    """Make a group the current one; None ends it."""
    _current[:] = [] if group is None else [group]
