"""Weights on disk: the tensors of a model folder by name, read when they are needed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from minigpt.errors import AssetError


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

    def read(self, names: Iterable[str], *, pinned: bool = False) -> dict[str, Tensor]:
        """Read tensors into memory, in the type that they are stored in.

        The files are open during the call only: pages of a mapped file would count as memory of the process.

        Args:
            names: names of the tensors.
            pinned: put them where an accelerator can fetch them from by itself.

        Raises:
            AssetError: a file cannot be read any more.
        """
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self.files[name], []).append(name)
        tensors: dict[str, Tensor] = {}
        for path, inside in by_file.items():
            try:
                with safe_open(path, framework="pt") as file:
                    for name in inside:
                        stored = file.get_tensor(name)
                        tensors[name] = stored.pin_memory() if pinned else stored.clone()
            except (OSError, SafetensorError) as error:
                raise AssetError(f"{path} cannot be read ({error}). Fetch or save it again.") from error
        return tensors
