"""Tests of work that is captured as a CUDA graph."""

from __future__ import annotations

import pytest
import torch

from minigpt.healing.capture import WARM_UPS, capture


@pytest.mark.gpu
def test_a_replay_reads_what_lies_in_the_buffers_now() -> None:
    buffer, calls = torch.ones(4, device="cuda"), []

    def work() -> torch.Tensor:
        calls.append("run")
        return 3 * buffer

    replay, result = capture(work, before_capture=lambda: calls.append("between"))
    assert calls == ["run"] * WARM_UPS + ["between", "run"]
    buffer.fill_(2)
    replay()
    assert result.tolist() == [6.0] * 4
    assert len(calls) == WARM_UPS + 2  # a replay runs no Python
