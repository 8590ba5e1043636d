"""The writer's files are those of the safetensors library, to the byte, whatever the order of the tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minigpt.errors import MiniGPTError
from minigpt.streaming.layout import under
from minigpt.streaming.weights import StoredWeights
from minigpt.streaming.writer import SafetensorsWriter


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_files_are_those_of_the_library(tmp_path: Path, dtype: torch.dtype) -> None:
    shapes: dict[str, tuple[int, ...]] = {"b.weight": (3, 5), "a.10.x": (7,), "a.2.x": (2, 2, 2), "é": (1,)}
    tensors = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "library.safetensors", metadata={"format": "pt"})
    with SafetensorsWriter(tmp_path / "ours.safetensors", shapes, dtype) as writer:
        for name in reversed(shapes):
            writer.write(name, tensors[name])
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "library.safetensors").read_bytes()


def test_numbers_are_cast_and_transposed_matrices_written_in_order(tmp_path: Path) -> None:
    value = torch.randn(4, 6)
    with SafetensorsWriter(tmp_path / "x.safetensors", {"x": (6, 4)}, torch.bfloat16) as writer:
        writer.write("x", value.T)
    stored = StoredWeights(tmp_path)
    assert stored.shapes == {"x": (6, 4)}
    assert torch.equal(stored.read({"x": under("x", tuple(value.T.shape))})["x"], value.T.to(torch.bfloat16))


def test_wrong_shapes_and_missing_tensors_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with (
        pytest.raises(MiniGPTError, match=r"x has the shape \(2,\)"),
        SafetensorsWriter(path, {"x": (3,)}, torch.float32) as writer,
    ):
        writer.write("x", torch.zeros(2))
    with pytest.raises(MiniGPTError, match="x is missing"), SafetensorsWriter(path, {"x": (3,)}, torch.float32):
        pass
