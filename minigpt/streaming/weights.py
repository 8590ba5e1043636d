"""Weights on disk: the tensors of a model folder by name, read when they are needed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import EllipsisType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minigpt.errors import AssetError
from minigpt.streaming.layout import Stored

Rows = slice | EllipsisType
# Numbers of a file that are mapped at once: pages that were read stay in the memory of the process until it is closed.
MAPPED = 16_000_000


class StoredWeights:
    """Tensors of a model folder, of which only the names and shapes are in memory.

    Args:
        folder: folder with safetensors files, one or many.

    Raises:
        AssetError: a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118 (not a mapping)
                        self.files[name] = path
                        self.shapes[name] = tuple(file.get_slice(name).get_shape())
            except SafetensorError as error:
                raise AssetError(f"{path} is damaged ({error}). Fetch or save it again.") from error

    def read(self, parameters: Mapping[str, Stored], *, pinned: bool = False) -> dict[str, Tensor]:
        """Read parameters into memory, in the type that they are stored in.

        The files are opened again and again: pages of a mapped file count as memory of the process.

        Args:
            parameters: the parameters by name, as files hold them.
            pinned: put them where an accelerator can fetch them from by itself.

        Raises:
            AssetError: a file cannot be read any more.
        """
        places = {piece.stored: (name, piece.place) for name, whole in parameters.items() for piece in whole.pieces}
        values: dict[str, Tensor] = {}
        for stored, rows, part in self._mapped(places):
            name, place = places[stored]
            if name not in values:
                values[name] = torch.empty(parameters[name].shape, dtype=part.dtype, pin_memory=pinned)
            values[name][place][rows] = part
        return values

    def _mapped(self, names: Iterable[str]) -> Iterator[tuple[str, Rows, Tensor]]:
        """Yield tensors of the files, or some rows of large ones, mapped into memory until the next is asked for.

        Raises:
            AssetError: a file cannot be read any more.
        """
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self.files[name], []).append(name)
        for path, inside in by_file.items():
            for group in groups(inside, self.shapes):
                try:
                    with safe_open(path, framework="pt") as file:
                        for name, rows in group:
                            yield name, rows, file.get_slice(name)[rows] if self.shapes[name] else file.get_tensor(name)
                except (OSError, SafetensorError) as error:
                    raise AssetError(f"{path} cannot be read ({error}). Fetch or save it again.") from error


def groups(names: Iterable[str], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[tuple[str, Rows]]]:
    """Divide tensors, in order, into groups of at most `MAPPED` numbers, large ones row by row.

    Args:
        names: names of tensors.
        shapes: their shapes.

    Yields:
        Names with rows.
    """
    group, size = list[tuple[str, Rows]](), 0
    for name in names:
        shape = shapes[name]
        count, row = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
        step = max(1, MAPPED // max(row, 1))
        for start in range(0, max(count, 1), step):
            rows = min(step, count - start)
            if group and size + rows * row > MAPPED:
                yield group
                group, size = [], 0
            group.append((name, slice(start, start + rows) if shape else ...))
            size += rows * row
    if group:
        yield group
