"""One row-skipping layer on a GPU, by sizes of programs: `python -m benchmarks.gpu_rows`.

Each call of a captured graph reads the weights of another layer, so that no cache holds them. Times stand beside those
of the dense layer, and the bytes of visited rows that were read in a second.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product
from statistics import median

import torch
from torch import Tensor

from benchmarks.conditional_gpu import timed
from benchmarks.gpu_decoder import Ffn, Layer, Sizes, random_model
from benchmarks.gpu_forms import FORMS, error_of, visits_of
from benchmarks.graphs import captured
from minigpt.conditional.kernels import triton_rows
from minigpt.conditional.kernels.row_weights import OPEN, RowWeights
from minigpt.conditional.layers import Relu, Threshold

FORM_NAMES = ["threshold:1", "threshold:0.5", "threshold:0.25", "threshold:0.1", "topk:0.5"]


def main() -> None:
    """Print a line for each form and size of programs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--ffn", type=int, default=8192)
    parser.add_argument("--layers", type=int, default=8, help="layers that take turns")
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--forms", nargs="+", default=FORM_NAMES)
    parser.add_argument("--blocks", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--pieces", type=int, nargs="+", default=[512])
    parser.add_argument("--warps", type=int, nargs="+", default=[4, 8])
    options = parser.parse_args()
    torch.manual_seed(0)
    sizes = Sizes(layers=options.layers, hidden=options.hidden, ffn=options.ffn, heads=1, kv_heads=1, vocab=1)
    with torch.no_grad():
        layers = random_model(sizes, "cuda", torch.bfloat16).layers
        x = torch.randn(options.tokens, options.hidden, device="cuda", dtype=torch.bfloat16)
        for name in ("dense", "fused"):
            print(f"{name:16} {microseconds([FORMS[name](layer, x, 1.0) for layer in layers], x):8.2f} us", flush=True)
        usual = triton_rows.launch_of(options.ffn, options.hidden)
        launches = list(product(options.blocks, options.pieces, options.warps))
        for name in options.forms:
            for launch in [usual, *(triton_rows.Launch(*numbers) for numbers in launches)]:
                report(name, launch, layers, x)


def report(name: str, launch: triton_rows.Launch, layers: list[Layer], x: Tensor) -> None:
    """Check and time one form with one size of programs, and print its line."""
    kind, _, share = name.partition(":")
    # Of other tokens, so that no neuron stands at the threshold itself, where rounding decides.
    others = torch.randn(32, x.shape[1], device=x.device, dtype=x.dtype)
    forms = [FORMS[kind](layer, others, float(share)) for layer in layers]
    try:
        error = error_of(next(kernels(forms, launch)), layers[0], x, forms[0])
        time = microseconds(list(kernels(forms, launch)), x)
    except Exception as problem:  # too many numbers for the registers, for one
        print(f"{name:16} {launch}: {type(problem).__name__}: {' '.join(str(problem).split())[:200]}", flush=True)
        return
    read = visits_of(forms[0], layers[0], x)[1] * 3 * layers[0].gate.nbytes
    print(f"{name:16} {launch} {time:8.2f} us, {read / time / 1e3:6.0f} GB/s, error {error:.4f}", flush=True)


def kernels(forms: list[Ffn], launch: triton_rows.Launch) -> Iterator[Ffn]:
    """Yield the kernel of each form for one size of programs."""
    for form in forms:
        assert isinstance(form, (Relu, Threshold))
        yield kernel_of(form, launch)


def kernel_of(form: Relu | Threshold, launch: triton_rows.Launch) -> Ffn:
    """Return the kernel of a form for one size of programs."""
    count = form.settings.top_k or 0 if isinstance(form, Relu) else 0
    gate_above = form.settings.t_act if isinstance(form, Threshold) else OPEN if count else 0.0
    weights = RowWeights(
        w_in=form.w_in, w_out=form.w_out, w_gate=form.w_gate, activation=form.settings.activation, top_k=count,
        gate_above=gate_above, value_above=0.0,
    )  # fmt: skip
    ready = triton_rows.prepare(weights, launch)
    assert ready is not None
    return ready


def microseconds(ffns: list[Ffn], x: Tensor) -> float:
    """Return the time of a call, of graphs of a call of each layer."""

    def call_all() -> list[Tensor]:
        return [ffn(x) for ffn in ffns]

    call_all()
    graph = captured(call_all)
    return median(timed(graph.replay, 20, True) / 20 / len(ffns) for _ in range(5)) * 1e6


if __name__ == "__main__":
    main()
