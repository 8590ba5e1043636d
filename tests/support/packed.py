"""Packed attention and captured steps for tests on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minigpt.healing import attention, graphs, run
from minigpt.healing import teacher as teaching
from minigpt.healing.graphs import GraphedSteps


def by_mask(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, _longest: int, scaling: float
) -> torch.Tensor:
    """Compute packed attention with a mask of blocks, as the reference for the kernel of an accelerator."""
    tokens, repeats = query.shape[2], query.shape[1] // key.shape[1]
    window = torch.bucketize(torch.arange(tokens, device=starts.device), starts, right=True)
    mask = (window[:, None] == window[None, :]) & torch.ones(tokens, tokens, device=starts.device).tril().bool()
    keys, values = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
    output = torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scaling)
    return output.transpose(1, 2)


def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run captured steps on a CPU: the step itself stands in for its graph, and a mask for the kernel."""

    def recorded(self: GraphedSteps) -> Any:
        torch.enable_grad()(self._step)()
        return torch.enable_grad()(self._step)

    monkeypatch.setattr(attention, "packed_attention", by_mask)
    monkeypatch.setattr(graphs.GraphedSteps, "_record", recorded)


def captured_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whole runs on a CPU take captured steps, as on an accelerator."""
    on_a_cpu(monkeypatch)
    monkeypatch.setattr(run, "can_capture", lambda *_: True)
    monkeypatch.setattr(teaching, "HALF_PRECISION", (torch.float32, torch.bfloat16))
