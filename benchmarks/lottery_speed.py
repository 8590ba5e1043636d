"""Speed of 2:4 tickets on a GPU: torch's semi-structured matrices against dense ones, for layers and a whole model.

Calls are replayed from captured CUDA graphs, because torch's operator takes the host longer than the card; the time of
an eager call stands beside. Results are compared with the dense product of the same zeros before anything is timed. A
result that is wrong is marked and gets no speed-up, and what the library refuses is reported with its reason.

A whole model is not judged by its largest error alone: rounding grows from layer to layer, most where the mask did
harm. Each product is compared on the dense model's own inputs, and the logits of both models with those in fp32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

import torch
from graphs import between
from torch import Tensor, nn

from minigpt import assets
from minigpt.files import write_json
from minigpt.healing.attention import causal_attention
from minigpt.healing.capture import capture
from minigpt.machine import device_name
from minigpt.tickets.masks import Pattern, apply_masks, keep_best, magnitudes, prunable, weights_of

SHAPES = ((192, 576), (576, 576), (1536, 576), (576, 1536), (2048, 2048), (8192, 2048), (4096, 4096), (14336, 4096))
TOKENS = (1, 16, 128, 1024, 8192)
# Largest error relative to the largest output, for products in 16 bits.
TOLERANCE = 2e-2
# Most error of a model's logits, relative to that of the dense model in the same precision.
EXCESS = 1.5
# Sequences whose logits are compared.
COMPARED = 4
# Milliseconds that a graph should last, so that its launch does not count; the most calls in one, and replays.
_GRAPH_MS, _CALLS, _REPLAYS = 0.5, 64, 15

Runs = Mapping[str, Callable[[], Any]]


@contextmanager
def refusals_in(row: dict[str, Any], name: str = "refused") -> Iterator[None]:
    """Write into a row why the library refuses what the block does: it has no kernel for a shape, a type or a card."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        row[name] = str(error).splitlines()[0][:200]


def eager_ms(function: Callable[[], Any], *, repeats: int = 15) -> float:
    """Return the median time of an eager call: that of the host where the card is faster."""
    for _ in range(3):
        function()
    return median(_between(function) for _ in range(repeats))


def _between(function: Callable[[], Any]) -> float:
    """Return the milliseconds that the card takes for what is launched."""
    return 1000 * between(function)


def captured_ms(runs: Runs) -> dict[str, float]:
    """Return the median time of a call of each contestant, replayed from graphs in turn."""
    replays: dict[str, Callable[[], Any]] = {}
    calls: dict[str, int] = {}
    for name, run in runs.items():
        once, _ = capture(run)
        calls[name] = max(1, min(_CALLS, int(_GRAPH_MS / min(_between(once) for _ in range(3)))))
        replays[name], _ = capture(lambda work=run, times=calls[name]: [work() for _ in range(times)])
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(_REPLAYS):
        for name, replay in replays.items():
            times[name].append(_between(replay) / calls[name])
    return {name: median(values) for name, values in times.items()}


def add_times(
    row: dict[str, Any],
    runs: Runs,
    *,
    eager: Callable[[Callable[[], Any]], float] = eager_ms,
    replayed: Callable[[Runs], Mapping[str, float]] = captured_ms,
) -> None:
    """Time the dense and the sparse run, and add the speed-up of the replayed calls if the result is right.

    Args:
        row: gets the times; its `right` says whether the sparse result is that of the dense one.
        runs: the calls by name, `dense` and `sparse`.
        eager: times a call.
        replayed: times replayed calls.
    """
    row |= {f"{name}_eager_ms": eager(run) for name, run in runs.items()}
    with refusals_in(row, "not_captured"):
        row |= {f"{name}_ms": value for name, value in replayed(runs).items()}
        if row["right"]:
            row["speedup"] = row["dense_ms"] / row["sparse_ms"]


def relative(expected: Tensor, result: Tensor) -> float:
    """Return the largest error relative to the largest output; infinite if a value is not finite."""
    error = float((expected.float() - result.float()).abs().max() / expected.float().abs().max())
    return error if error == error else float("inf")


def halved(rows: int, columns: int, dtype: torch.dtype, device: str) -> Tensor:
    """Return a random matrix with the two largest of every four weights."""
    weight = torch.randn(rows, columns, dtype=dtype, device=device) / columns**0.5
    mask = keep_best(magnitudes({"w": weight}), 0.5, Pattern("2:4"))["w"]
    return weight * mask


@torch.inference_mode()
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
                runs = {
                    name: lambda a=x, w=weight: nn.functional.linear(a, w)
                    for name, weight in (("dense", dense), ("sparse", to_sparse_semi_structured(dense)))
                }
                row["error"] = relative(runs["dense"](), runs["sparse"]())
                row["right"] = row["error"] < TOLERANCE
                add_times(row, runs)
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


def worst_product(model: Any, other: Any, names: tuple[str, ...], ids: Tensor) -> tuple[float, str]:
    """Return the largest error of a product of the other model on the dense model's inputs, and its weight's name."""
    errors: dict[str, float] = {}

    def compare(name: str, module: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            errors[name] = relative(output, module(inputs[0]))

        return hook

    paths = [name.rpartition(".")[0] for name in names]
    hooks = [
        model.get_submodule(path).register_forward_hook(compare(name, other.get_submodule(path)))
        for name, path in zip(names, paths, strict=True)
    ]
    try:
        model(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    worst = max(errors, key=lambda name: errors[name])
    return errors[worst], worst


def compare_models(model: Any, other: Any, exact: Any, names: tuple[str, ...], ids: Tensor) -> dict[str, Any]:
    """Say whether another form of a model computes the same, with the errors that say so.

    Args:
        model: the dense model.
        other: the same with other matrices.
        exact: the dense model in fp32.
        names: weights that differ in form.
        ids: [batch, length] tokens.
    """
    dense, sparse, reference = (m(input_ids=ids, use_cache=False).logits.float() for m in (model, other, exact))
    product, name = worst_product(model, other, names, ids)
    noise, error = (float((reference - logits).norm() / reference.norm()) for logits in (dense, sparse))
    return {
        "error": relative(dense, sparse), "error_of_rounding": relative(reference, dense),
        "distance_to_fp32": error, "dense_distance_to_fp32": noise,
        "worst_product": product, "worst_product_of": name,
        "right": product < TOLERANCE and error <= EXCESS * noise + TOLERANCE / 10,
    }  # fmt: skip


@torch.inference_mode()
def model_rows(base: str, dtype: torch.dtype, backend: str) -> list[dict[str, Any]]:
    """Time a forward pass of the parent with a 2:4 mask, dense and semi-structured, at several batch sizes.

    The head computes the last token's logits only, as before generation.
    """
    model: Any = assets.load_model(assets.parent(base).path, dtype=dtype, device="cuda").requires_grad_(False)
    names = prunable(model)
    apply_masks(model, keep_best(magnitudes(weights_of(model, names)), 0.5, Pattern("2:4")))
    exact: Any = deepcopy(model).float()
    rows: list[dict[str, Any]] = []
    whole: dict[str, Any] = {"backend": backend}
    with refusals_in(whole):
        sparse = sparse_copy(model, names)
    if "refused" in whole:
        return [whole]
    dense_bytes = sum(weight.nbytes for name, weight in model.named_parameters() if name in names)
    with causal_attention(model, sparse, exact):
        for batch, length in ((1, 1), (1, 512), (8, 512), (64, 512)):
            ids = torch.randint(3, model.config.vocab_size, (batch, length), device="cuda")
            row: dict[str, Any] = {"batch": batch, "length": length, "backend": backend, "matrix_bytes": dense_bytes}
            with refusals_in(row):
                row |= compare_models(model, sparse, exact, names, ids[:COMPARED])
                runs = {
                    name: lambda m=one, i=ids: m(input_ids=i, use_cache=False, logits_to_keep=1)
                    for name, one in (("dense", model), ("sparse", sparse))
                }
                add_times(row, runs)
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
