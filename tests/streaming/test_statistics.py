"""Streamed statistics and norms equal those of a model in memory, to the bit."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor

from minigpt.errors import CorpusError
from minigpt.methods.norms import weight_norms
from minigpt.pruning.waiting import PROCESSOR, OnDisk
from minigpt.streaming.statistics import collect, norms_of
from minigpt.transformer import stats
from tests.support.archsuite import random_batch
from tests.support.streamed import STREAMED, saved, streamed, whole

BATCHES = [random_batch(seed=seed, rows=2, length=20 + seed) for seed in range(3)]


@pytest.mark.parametrize("family", STREAMED)
def test_statistics_are_those_of_the_loaded_model(tmp_path: Path, family: str) -> None:
    saved(tmp_path, family)
    model = whole(tmp_path)
    measured, norms = collect(streamed(tmp_path), BATCHES)
    for actual, expected in ((measured, stats.collect(model, BATCHES)), (norms, weight_norms(model))):
        for field in fields(expected):
            value, wanted = getattr(actual, field.name), getattr(expected, field.name)
            assert torch.equal(value, wanted) if isinstance(wanted, Tensor) else value == wanted, field.name


def test_text_that_waits_on_the_disk_gives_the_same_statistics(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    home = OnDisk(tmp_path / "work")
    (actual, _), (expected, _) = (collect(streamed(tmp_path, place), BATCHES) for place in (home, PROCESSOR))
    for name in ("ffn_sq", "head_sq", "layer_cos"):
        assert torch.equal(getattr(actual, name), getattr(expected, name)), name
    assert home.size > 0


def test_norms_alone(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    expected = weight_norms(whole(tmp_path))
    actual = norms_of(streamed(tmp_path))
    assert all(torch.equal(getattr(actual, field.name), getattr(expected, field.name)) for field in fields(expected))


def test_text_is_needed(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no text"):
        collect(streamed(saved(tmp_path, "llama")), [])
