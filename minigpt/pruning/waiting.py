"""Text that waits while no layer reads it: in the memory of a device, or in a file that no name leads to."""

from __future__ import annotations

import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import torch
from torch import Tensor


class Waiting(Protocol):
    """States that wait; a tensor is such a thing by itself."""

    def to(self, device: torch.device, /) -> Tensor:
        """Return the states on a device."""


class Home(Protocol):
    """A place where states wait."""

    def keep(self, states: Tensor) -> Waiting:
        """Put states there, for as long as somebody refers to what is returned."""


@dataclass(frozen=True, slots=True)
class InMemory:
    """A place in the memory of a device.

    Attributes:
        device: the device.
    """

    device: torch.device

    def keep(self, states: Tensor) -> Waiting:
        """Move states to the device, unless they are there.

        From a GPU they go to memory that is pinned, from where it reads many times faster, as long as there is any.
        """
        if states.device.type == "cuda" and self.device.type == "cpu":
            try:
                room = torch.empty(states.shape, dtype=states.dtype, pin_memory=True)
            except RuntimeError:  # the system pins no more
                return states.to(self.device)
            return room.copy_(states)
        return states.to(self.device)


# The memory of the process.
PROCESSOR = InMemory(torch.device("cpu"))


class OnDisk:
    """A place in one file, which disappears with this object or with the process, however that ends.

    The file has no name where the system allows it, so that nothing is left to clean up. States are read and written
    instead of mapped: pages of a mapped file would count as memory of the process. The room of states to which nobody
    refers any more is used again, so that the file is as long as what waits at the same time.

    Args:
        folder: folder on the disk to use; it is made with the first states.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.size = 0
        self._file: IO[bytes] | None = None
        self._free: dict[int, list[int]] = {}

    def keep(self, states: Tensor) -> Waiting:
        """Write states to the file.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        values = states.detach().to("cpu").contiguous()
        free = self._free.setdefault(values.nbytes, [])
        if free:
            start = free.pop()
        else:
            start, self.size = self.size, self.size + values.nbytes
        stored = _Stored(self, start, values.shape, values.dtype)
        weakref.finalize(stored, free.append, start).atexit = False
        file = self.file
        file.seek(start)
        file.write(values.view(-1).view(torch.uint8).numpy().data)
        return stored

    @property
    def file(self) -> IO[bytes]:
        """The open file."""
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 (open as long as this object)
        return self._file


class _Stored:
    """States in the file of a place on disk."""

    def __init__(self, home: OnDisk, start: int, shape: torch.Size, dtype: torch.dtype) -> None:
        self.home, self.start, self.shape, self.dtype = home, start, shape, dtype

    def to(self, device: torch.device, /) -> Tensor:
        """Read the states, and move them to a device."""
        values = torch.empty(self.shape, dtype=self.dtype)
        self.home.file.seek(self.start)
        self.home.file.readinto(values.view(-1).view(torch.uint8).numpy().data)  # type: ignore[attr-defined]
        return values.to(device)
