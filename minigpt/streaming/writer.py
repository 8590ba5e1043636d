"""Writer of one safetensors file whose tensors come one by one, in any order; the whole file is never in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from minigpt.errors import MiniGPTError

# Names that the format has for types of numbers, with their bytes.
TYPES = {torch.float32: ("F32", 4), torch.bfloat16: ("BF16", 2), torch.float16: ("F16", 2)}
# The header ends at a multiple of this, filled up with spaces.
ALIGNMENT = 8


class SafetensorsWriter:
    """An open file with room for all tensors; the bytes are those that the safetensors library would write.

    Args:
        path: the file; it is replaced.
        shapes: shapes of all tensors by name.
        dtype: type that all of them are written in.
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
        kind, size = TYPES[dtype]
        self.path, self.dtype, self.shapes = path, dtype, dict(shapes)
        self.missing = set(shapes)
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        self.offsets: dict[str, int] = {}
        end = 0
        for name in sorted(shapes):
            start, end = end, end + size * math.prod(shapes[name])
            self.offsets[name] = start
            header[name] = {"dtype": kind, "shape": list(shapes[name]), "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        self._start = len(text) + 8
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._start + end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        if error is None and self.missing:
            raise MiniGPTError(f"{self.path} was not written whole: {sorted(self.missing)[0]} is missing.")

    def write(self, name: str, value: Tensor) -> None:
        """Write a tensor, cast to the type of the file.

        Raises:
            MiniGPTError: the file has no room for a tensor of this name and shape.
        """
        if self.shapes.get(name) != tuple(value.shape):
            raise MiniGPTError(f"{name} has the shape {tuple(value.shape)}, and {self.path} expects another model.")
        flat = value.detach().to("cpu", self.dtype).contiguous().view(-1)
        self._file.seek(self._start + self.offsets[name])
        self._file.write(flat.view(torch.uint8).numpy().data)
        self.missing.discard(name)
