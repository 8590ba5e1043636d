"""CUDA graphs of benchmarks, and the time that a GPU takes for what is launched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def between(run: Callable[[], Any]) -> float:
    """Return the seconds between events before and after what is launched."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def captured(run: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    """Return the graph of what is launched, which has to have run before: kernels are compiled at their first call."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    torch.cuda.synchronize()
    return graph
