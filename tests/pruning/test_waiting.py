"""Text that waits: it comes back as it was, its room is used again, and a killed process leaves nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minigpt.pruning.waiting import PROCESSOR, OnDisk

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_come_back_as_they_were(tmp_path: Path, dtype: torch.dtype) -> None:
    home = OnDisk(tmp_path)
    states = [torch.randn(3, 5, 7).to(dtype).transpose(0, 1), torch.randn(2, 1, 4).to(dtype), torch.randn(0, 4)]
    waiting = [home.keep(value) for value in states]
    for value, kept in zip(states, waiting, strict=True):
        for _ in range(2):
            assert torch.equal(kept.to(CPU), value)
            assert kept.to(CPU).dtype == value.dtype


@pytest.mark.gpu
def test_states_of_a_gpu_wait_in_pinned_memory() -> None:
    states = torch.randn(3, 5, device="cuda").transpose(0, 1)
    kept = PROCESSOR.keep(states)
    assert isinstance(kept, torch.Tensor)
    assert kept.is_pinned()
    assert torch.equal(kept, states.cpu())


def test_what_is_read_belongs_to_the_reader(tmp_path: Path) -> None:
    kept = OnDisk(tmp_path).keep(torch.ones(4))
    kept.to(CPU).zero_()
    assert torch.equal(kept.to(CPU), torch.ones(4))


def test_room_is_used_again_only_when_nobody_refers_to_it(tmp_path: Path) -> None:
    home = OnDisk(tmp_path)
    first, second = home.keep(torch.full((8,), 1.0)), home.keep(torch.full((8,), 2.0))
    read = first.to(CPU)
    assert home.size == 64
    del first
    third, fourth = home.keep(torch.full((8,), 3.0)), home.keep(torch.full((4,), 4.0))
    assert home.size == 64 + 16
    values = [float(kept.to(CPU).mean()) for kept in (second, third, fourth)]
    assert [float(read.mean()), *values] == [1.0, 2.0, 3.0, 4.0]


def test_memory_is_a_place_too() -> None:
    states = torch.randn(3)
    assert PROCESSOR.keep(states) is states


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path; from minigpt.pruning.waiting import OnDisk\n"
        "home = OnDisk(Path(sys.argv[1])); kept = home.keep(torch.ones(100_000)); home.file.flush()\n"
        "print(home.size, flush=True); sys.stdin.read()"
    )
    folder = tmp_path / "work"
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "400000\n"
        process.send_signal(signal.SIGKILL)
    assert folder.is_dir()
    assert not list(folder.iterdir())
