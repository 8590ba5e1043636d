"""Tests of the facts about the machine."""

from __future__ import annotations

import pytest
import torch

from minigpt.errors import ConfigError
from minigpt.machine import THREADS_BESIDE_GPU, pick_device, spare_processor


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of threads that torch was set to, on a machine of 64 cores."""
    numbers: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return numbers


def test_a_gpu_leaves_most_cores_to_other_builds(threads: list[int]) -> None:
    spare_processor("cuda:1")
    assert threads == [THREADS_BESIDE_GPU]


def test_the_processor_itself_uses_all_cores(threads: list[int]) -> None:
    spare_processor("cpu")
    assert not threads


def test_the_users_number_of_threads_stays(threads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "32")
    spare_processor("cuda")
    assert not threads


@pytest.mark.parametrize("name", ["gpu", "cuda:9x", "cpu:", "xla", "meta"])
def test_a_device_that_cannot_be_used_is_one_short_sentence(name: str) -> None:
    with pytest.raises(ConfigError, match="use --device auto") as refused:
        pick_device(name)
    assert repr(name) in str(refused.value)
    assert len(str(refused.value)) < 220
    assert "privateuseone" not in str(refused.value)
