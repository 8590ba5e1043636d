"""Weights on disk: the tensors of a model folder by name, read when they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minigpt.errors import AssetError
from minigpt.streaming.layout import Stored


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

        The files are open during the call only: pages of a mapped file would count as memory of the process.

        Args:
            parameters: the parameters by name, as files hold them.
            pinned: put them where an accelerator can fetch them from by itself.

        Raises:
            AssetError: a file cannot be read any more.
        """
        places = {piece.stored: (name, piece.place) for name, whole in parameters.items() for piece in whole.pieces}
        values: dict[str, Tensor] = {}
        for stored, tensor in self._mapped(places):
            name, place = places[stored]
            if not place:
                values[name] = tensor.pin_memory() if pinned else tensor.clone()
                continue
            if name not in values:
                values[name] = torch.empty(parameters[name].shape, dtype=tensor.dtype, pin_memory=pinned)
            values[name][place] = tensor
        return values

    def _mapped(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield tensors of the files, which are mapped into memory until the next one is asked for.

        Raises:
            AssetError: a file cannot be read any more.
        """
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self.files[name], []).append(name)
        for path, inside in by_file.items():
            try:
                with safe_open(path, framework="pt") as file:
                    for name in inside:
                        yield name, file.get_tensor(name)
            except (OSError, SafetensorError) as error:
                raise AssetError(f"{path} cannot be read ({error}). Fetch or save it again.") from error
