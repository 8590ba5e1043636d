"""Batches that do not fit in memory: the work on them is done in portions, which halve until they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, TypeVar

from minigpt.errors import is_out_of_memory
from minigpt.machine import release
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.batches import Batch, split_rows

R = TypeVar("R")


class Portions:
    """Number of portions in which batches are worked on; it doubles whenever memory runs out, and stays.

    Args:
        what: the work, as the subject of a note.
        reporter: told once that memory ran out.
        parts: portions to begin with.
    """

    def __init__(self, what: str, reporter: Reporter = SILENT, *, parts: int = 1) -> None:
        self.what, self.reporter, self.parts = what, reporter, parts

    def slices(self, rows: int) -> list[slice]:
        """Return the rows of each portion, of which none is empty."""
        return _slices(rows, self.parts)

    def run(self, rows: int, work: Callable[[Sequence[slice]], R]) -> R:
        """Do the work on the rows of a batch, in more and smaller portions if memory runs out.

        Args:
            rows: number of rows.
            work: does all of it, one slice of the rows after the other. It may be called again from the beginning, so
                it must not have changed anything that lasts when it fails.

        Raises:
            MemoryError: a single row does not fit either; or the error that torch has for it.
        """
        while True:
            try:
                return work(self.slices(rows))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self.parts >= rows:
                    raise
            # Outside of the handler, because the error holds the tensors of the pass that failed.
            self._halve()

    def _halve(self) -> None:
        """Take twice as many portions, and free what the failed attempt has left."""
        if self.parts == 1:
            self.reporter.note(f"{self.what}: memory ran out, so that batches are split; it takes longer.")
        self.parts *= 2
        release()


def _slices(rows: int, parts: int) -> list[slice]:
    """Cut `rows` into `parts` slices of nearly equal size; none is empty."""
    size = max(1, -(-rows // parts))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def in_smaller_batches(collect: Callable[..., R]) -> Callable[..., R]:
    """Make a pass over batches begin again with half as large ones if memory runs out.

    Args:
        collect: takes a model, batches, and perhaps a reporter by name.
    """

    @wraps(collect)
    def collected(model: Any, batches: Iterable[Batch], *, reporter: Reporter = SILENT, **options: Any) -> R:
        if options.get("group") is not None:  # several processes have to do the same passes
            return collect(model, batches, reporter=reporter, **options)
        listed = list(batches)
        portions = Portions("Activation statistics", reporter)

        def pass_over(parts: Sequence[slice]) -> R:
            smaller = listed if len(parts) == 1 else [part for batch in listed for part in _split(batch, len(parts))]
            return collect(model, smaller, reporter=reporter, **options)

        return portions.run(max((len(batch.input_ids) for batch in listed), default=1), pass_over)

    return collected


def _split(batch: Batch, parts: int) -> Iterable[Batch]:
    """Split a batch into at most `parts` smaller ones."""
    rows = -(-len(batch.input_ids) // parts)
    return split_rows(batch, rows * batch.input_ids.shape[1])
