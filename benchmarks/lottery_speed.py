"""Speed of 2:4 tickets on a GPU: torch's semi-structured matrices against dense ones, for layers and a whole model.

Every result is compared with the dense product of the same zeros before it is timed; a shape or a backend that the
library refuses is reported with its reason.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minigpt import assets
from minigpt.files import write_json
from minigpt.machine import device_name
from minigpt.tickets.masks import Pattern, apply_masks, keep_best, magnitudes, prunable, weights_of

SHAPES = ((576, 576), (1536, 576), (576, 1536), (2048, 2048), (8192, 2048), (4096, 4096), (14336, 4096))
TOKENS = (1, 16, 128, 1024, 8192)
# Largest error relative to the largest output, for products in 16 bits.
TOLERANCE = 2e-2


@contextmanager
def refusals_in(row: dict[str, Any]) -> Iterator[None]:
    """Write into a row why the library refuses what the block does: it has no kernel for a shape, a type or a card."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        row["refused"] = str(error).splitlines()[0][:200]


def milliseconds(function: Callable[[], Any], *, repeats: int = 30) -> float:
    """Return the median time of a call on the GPU."""
    for _ in range(5):
        function()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def halved(rows: int, columns: int, dtype: torch.dtype, device: str) -> Tensor:
    """Return a random matrix with the two largest of every four weights."""
    weight = torch.randn(rows, columns, dtype=dtype, device=device) / columns**0.5
    mask = keep_best(magnitudes({"w": weight}), 0.5, Pattern("2:4"))["w"]
    return weight * mask


def layer_rows(dtype: torch.dtype, backend: str) -> list[dict[str, Any]]:
    """Time every shape at every number of tokens."""
    from torch.sparse import to_sparse_semi_structured

    rows = []
    for outputs, inputs in SHAPES:
        dense = halved(outputs, inputs, dtype, "cuda")
        for tokens in TOKENS:
            row: dict[str, Any] = {"outputs": outputs, "inputs": inputs, "tokens": tokens, "backend": backend}
            x = torch.randn(tokens, inputs, dtype=dtype, device="cuda")
            with refusals_in(row):
                sparse = to_sparse_semi_structured(dense)
                expected, result = nn.functional.linear(x, dense), nn.functional.linear(x, sparse)
                error = float((expected - result).abs().max() / expected.abs().max())
                row |= {"error": error, "right": error < TOLERANCE}
                row["dense_ms"] = milliseconds(lambda a=x, w=dense: nn.functional.linear(a, w))
                row["sparse_ms"] = milliseconds(lambda a=x, w=sparse: nn.functional.linear(a, w))
                row["speedup"] = row["dense_ms"] / row["sparse_ms"]
            rows.append(row)
            print(row, flush=True)
    return rows


def sparse_copy(model: Any, names: tuple[str, ...]) -> Any:
    """Copy a model with these weights as semi-structured matrices."""
    from torch.sparse import to_sparse_semi_structured

    copy: Any = deepcopy(model)
    for name in names:
        module = copy.get_submodule(name.rpartition(".")[0])
        module.weight = nn.Parameter(to_sparse_semi_structured(module.weight.detach()), requires_grad=False)
    return copy


@torch.inference_mode()
def model_rows(base: str, dtype: torch.dtype, backend: str) -> list[dict[str, Any]]:
    """Time a forward pass of the parent with a 2:4 mask, dense and semi-structured, at several batch sizes."""
    model: Any = assets.load_model(assets.parent(base).path, dtype=dtype, device="cuda").requires_grad_(False)
    names = prunable(model)
    apply_masks(model, keep_best(magnitudes(weights_of(model, names)), 0.5, Pattern("2:4")))
    rows: list[dict[str, Any]] = []
    whole: dict[str, Any] = {"backend": backend}
    with refusals_in(whole):
        sparse = sparse_copy(model, names)
    if "refused" in whole:
        return [whole]
    dense_bytes = sum(weight.nbytes for name, weight in model.named_parameters() if name in names)
    for batch, length in ((1, 1), (1, 512), (8, 512), (64, 512)):
        ids = torch.randint(3, model.config.vocab_size, (batch, length), device="cuda")
        row: dict[str, Any] = {"batch": batch, "length": length, "backend": backend, "matrix_bytes": dense_bytes}
        with refusals_in(row):
            expected, result = (m(input_ids=ids, use_cache=False).logits.float() for m in (model, sparse))
            row["error"] = float((expected - result).abs().max() / expected.abs().max())
            for name, one in (("dense", model), ("sparse", sparse)):
                row[f"{name}_ms"] = milliseconds(lambda m=one, i=ids: m(input_ids=i, use_cache=False), repeats=15)
            row["speedup"] = row["dense_ms"] / row["sparse_ms"]
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    """Measure both backends of the library and write all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--base", default=assets.DEFAULT_BASE)
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="bfloat16")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("Semi-structured matrices need a CUDA GPU of the Ampere generation or later.")
    from torch.sparse import SparseSemiStructuredTensor

    dtype, started = getattr(torch, options.dtype), time.perf_counter()
    result: dict[str, Any] = {"device": device_name("cuda"), "torch": torch.__version__, "dtype": options.dtype}
    result["layers"], result["model"] = [], []
    for backend, cutlass in (("cuSPARSELt", False), ("CUTLASS", True)):
        SparseSemiStructuredTensor._FORCE_CUTLASS = cutlass
        result["layers"] += layer_rows(dtype, backend)
        result["model"] += model_rows(options.base, dtype, backend)
        write_json(options.json, {**result, "seconds": time.perf_counter() - started})


if __name__ == "__main__":
    main()
