"""Work of fixed shapes captured as CUDA graphs, since small models spend most of their time on launching kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from minigpt.distributed import current

# Times that the work runs before its capture, so that kernels and buffers are set up outside of the graph.
WARM_UPS = 2
Result = TypeVar("Result")


def capture(
    work: Callable[[], Result], *, before_capture: Callable[[], object] = lambda: None
) -> tuple[Callable[[], Any], Result]:
    """Capture some work as a CUDA graph.

    Args:
        work: reads tensors that stay where they are, and does not wait for the device. It is run `WARM_UPS` times on a
            stream of its own and once more for the capture, with or without gradients as the caller has set it.
        before_capture: is called between the two, to give memory of the first runs free.

    Returns:
        A function that runs the work again, and what the captured run returned: tensors that each replay overwrites.
    """
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    before_capture()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode=capture_mode()):
        result = work()
    return graph.replay, result


def capture_mode() -> str:
    """Name the threads that may only do what can be captured: all, or this one where NCCL has a thread of its own."""
    return "global" if current() is None else "thread_local"
