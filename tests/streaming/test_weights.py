"""Weights on disk: tensors come whole, whatever share of a file is mapped at once."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minigpt.streaming import weights
from minigpt.streaming.layout import under
from minigpt.streaming.weights import StoredWeights, groups
from tests.support.streamed import saved, streamed, whole

SHAPES = {"wide": (7, 3), "cube": (5, 4, 2), "flat": (40,), "number": (), "none": (0, 3), "row": (1, 30)}


@pytest.mark.parametrize("most", [1, 9, 20, 1000])
def test_groups_hold_every_row_once_in_order(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(weights, "MAPPED", most)
    seen: dict[str, list[int]] = {name: [] for name in SHAPES}
    for group in groups(SHAPES, SHAPES):
        sizes = []
        for name, rows in group:
            shape = SHAPES[name]
            places = range(*rows.indices(shape[0])) if isinstance(rows, slice) else [0]
            seen[name] += places
            sizes.append(len(places) * prod(shape[1:]))
        assert len(group) == 1 or sum(sizes) <= most
    assert seen == {name: list(range(shape[0] if shape else 1)) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("most", [1, 9, 1000])
def test_tensors_come_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(weights, "MAPPED", most)
    tensors = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    values = StoredWeights(tmp_path).read({name: under(name, shape) for name, shape in SHAPES.items()})
    assert set(values) == set(tensors)
    assert all(torch.equal(values[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("family", ["gpt_oss", "qwen3_moe"])
def test_experts_are_read_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    monkeypatch.setattr(weights, "MAPPED", 3000)
    parent = streamed(saved(tmp_path, family))
    state = whole(tmp_path).state_dict()
    for _ in parent.sweep(title=""):
        assert all(
            value.is_meta or torch.equal(value, state[name]) for name, value in parent.model.state_dict().items()
        )
