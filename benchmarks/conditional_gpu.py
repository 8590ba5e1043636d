"""Whole models with conditional layers on a GPU: `python -m benchmarks.conditional_gpu --json OUT`.

A Llama of random weights decodes after a context of random keys and values. Each form of its feed-forward layers is one
captured CUDA graph of a whole step; all of them take turns, and then each is replayed for a second while the GPU's
energy counter runs. `threshold:1` visits every neuron: what it gains is the kernel's. `fused` and `compiled` are dense
layers at their best, `free` has no feed-forward layers. A form that breaks is named, and the others go on. On a
processor, steps are run without graphs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_decoder import Decoder, Ffn, Model, Sizes, random_model
from benchmarks.gpu_forms import FORMS, error_of, visits_of
from benchmarks.graphs import between, captured
from minigpt.energy import energy, used
from minigpt.files import write_json
from minigpt.machine import device_name, versions

DEFAULT = [
    *("dense", "fused", "compiled", "threshold:1", "threshold:0.5", "threshold:0.25", "threshold:0.1"),
    *("relu:0.1", "topk:0.5", "trees:0.01", "free"),
]
# Sequences of the decoding that thresholds are taken from, and steps whose visits are counted.
_CALIBRATION, _COUNTED = 32, 4


@dataclass
class Form:
    """A form of all feed-forward layers that is ready to be timed.

    Attributes:
        name: its name.
        replay: decodes one token of each sequence.
        ffns: its layers, whose weights a captured graph reads without keeping them.
        facts: what is known before it is timed.
        seconds: of a step, one for each round.
    """

    name: str
    replay: Callable[[], Any]
    ffns: list[Ffn]
    facts: dict[str, float]
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Measure each number of sequences, and write the rows."""
    options = arguments().parse_args()
    names = ("layers", "hidden", "ffn", "heads", "kv_heads", "vocab")
    sizes = Sizes(**{name: getattr(options, name) for name in names})
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        model = random_model(sizes, options.device, torch.bfloat16 if options.device == "cuda" else torch.float32)
        for tokens in options.tokens:
            rows += measured(model, tokens, options)
            write_json(options.json, {"machine": machine(options), "rows": rows})
    print(table(rows))


def arguments() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file of results")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cuda", "cpu"))
    shape = {"layers": 16, "hidden": 2048, "ffn": 8192, "heads": 32, "kv_heads": 8, "vocab": 128256}
    for name, value in shape.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 4], help="sequences that are decoded together")
    parser.add_argument(
        "--forms", nargs="+", default=DEFAULT, type=form_name, metavar="FORM", help="KIND or KIND:SHARE"
    )
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--steps", type=int, default=64, help="steps of a round, and places behind the context")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--energy", type=float, default=1.0, help="seconds of replays for the energy of a token")
    parser.add_argument("--eager-rest", action="store_true", help="do not compile what is between the layers")
    return parser


def form_name(text: str) -> str:
    """Check the name of a form."""
    kind, _, share = text.partition(":")
    if kind not in FORMS or (share and not 0 < float(share) <= 1):
        raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(FORMS)}, with a share up to 1 after a colon")
    return text


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Describe where figures come from."""
    known = {name: value for name, value in vars(options).items() if name not in ("json", "forms")}
    return {
        "device": device_name(options.device),
        "versions": versions("benchmark", ("torch", "triton", "numba")),
        **known,
    }


def measured(model: Model, tokens: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Make all forms, time them by turns, and return a row for each."""
    on_gpu = options.device == "cuda"
    decoder = ready(model, tokens, options)
    calibration = Decoder(model, _CALIBRATION, options.context, 1)
    forms = list(prepared(options.forms, decoder, calibration, on_gpu))
    for _ in range(options.repeats):
        for form in forms:
            decoder.restart()
            form.seconds.append(timed(form.replay, options.steps, on_gpu) / options.steps)
    rows = []
    for form in forms:
        decoder.restart()
        row = {**row_of(form, forms, tokens), "joules": joules(form.replay, median(form.seconds), tokens, options)}
        rows.append(row)
        print(f"{form.name:16} x{tokens}: {row['speed']['median']:8.1f} tokens/s, ratio {row['ratio']}", flush=True)
    return rows


def ready(model: Model, tokens: int, options: argparse.Namespace) -> Decoder:
    """Return a decoder that made a step: compiled on a GPU, unless the compiler fails."""
    if options.device == "cuda" and not options.eager_rest:
        start, decoder = time.perf_counter(), Decoder(model, tokens, options.context, options.steps, compiled=True)
        try:
            decoder.step([torch.zeros_like] * model.sizes.layers)
            print(f"compiled in {time.perf_counter() - start:.1f} s", flush=True)
            return decoder
        except Exception as error:  # without the compiler all forms are slower by the same
            print(f"not compiled: {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
    return Decoder(model, tokens, options.context, options.steps)


def row_of(form: Form, forms: list[Form], tokens: int) -> dict[str, Any]:
    """Return the row of a form: speed, and ratios to the first form and to the best dense one in the same round."""
    first = forms[0]
    dense = [other for other in forms if other.name in ("dense", "fused", "compiled")]
    best = min(dense or [first], key=lambda other: median(other.seconds))
    return {
        "form": form.name,
        "tokens": tokens,
        **form.facts,
        "speed": spread([tokens / seconds for seconds in form.seconds]),
        "ratio": spread([base / own for own, base in zip(form.seconds, first.seconds, strict=True)]),
        "best_dense": best.name,
        "ratio_to_best": spread([base / own for own, base in zip(form.seconds, best.seconds, strict=True)]),
        "ratio_by_bytes": first.facts["bytes"] / form.facts["bytes"],
    }


def prepared(names: list[str], decoder: Decoder, calibration: Decoder, on_gpu: bool) -> Iterator[Form]:
    """Yield the forms that can be made and whose outputs are right; a line says what is wrong with the others."""
    for name in names:
        start = time.perf_counter()
        try:
            form = made_form(name, decoder, calibration, on_gpu)
        except Exception as error:  # the others are worth as much
            print(f"{name:16} left out: {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
            continue
        print(f"{name:16} ready in {time.perf_counter() - start:.1f} s: {form.facts}", flush=True)
        yield form


def made_form(name: str, decoder: Decoder, calibration: Decoder, on_gpu: bool) -> Form:
    """Make a form of every layer, check one, count its visits in decoding, and capture a step."""
    kind, _, share = name.partition(":")
    layers, ffns, inputs = decoder.model.layers, list[Ffn](), list[Tensor]()

    def converted(place: int) -> Ffn:
        def first_call(x: Tensor) -> Tensor:
            ffns.append(FORMS[kind](layers[place], x, float(share or 1)))
            # The layer itself runs with many tokens in dense products.
            return ffns[place](x)

        return first_call

    calibration.restart()
    calibration.step([converted(place) for place in range(len(layers))])
    decoder.restart()
    shares = []
    for _ in range(_COUNTED):
        inputs.clear()
        decoder.step([noting(ffn, inputs) for ffn in ffns])
        shares += [visits_of(ffn, layer, x) for ffn, layer, x in zip(ffns, layers, inputs, strict=True)]
    middle = len(layers) // 2
    facts = {"error": error_of(ffns[middle], layers[middle], inputs[middle])}
    facts["visited"] = sum(visited for visited, _ in shares) / len(shares)
    read = sum(weights for _, weights in shares) / len(shares)
    size = sum(3 * layer.gate.nbytes for layer in layers)
    facts["bytes"] = decoder.model.bytes_of_rest() + size * read
    if not on_gpu:
        return Form(name, lambda: decoder.step(ffns), ffns, facts)
    decoder.step(ffns)
    graph = captured(lambda: decoder.step(ffns))
    return Form(name, graph.replay, ffns, facts)


def noting(ffn: Ffn, inputs: list[Tensor]) -> Ffn:
    """Return a layer that notes what it reads."""

    def compute(x: Tensor) -> Tensor:
        inputs.append(x.clone())
        return ffn(x)

    return compute


def timed(run: Callable[[], Any], times: int, on_gpu: bool) -> float:
    """Return the seconds of some steps after one that is not counted."""
    run()
    if not on_gpu:
        start = time.perf_counter()
        for _ in range(times):
            run()
        return time.perf_counter() - start
    return between(lambda: [run() for _ in range(times)])


def joules(run: Callable[[], Any], seconds: float, tokens: int, options: argparse.Namespace) -> float | None:
    """Return the GPU's energy of a token over replays that last some time; None where no counter can be read."""
    if options.device != "cuda" or options.energy <= 0:
        return None
    times = int(options.energy / seconds) + 1
    run()
    torch.cuda.synchronize()
    before = energy(options.device)
    for _ in range(times):
        run()
    torch.cuda.synchronize()
    spent = used(before, energy(options.device)).get("gpu")
    return None if spent is None else spent / times / tokens


def spread(values: list[float]) -> dict[str, float]:
    """Return median and range."""
    return {"median": median(values), "low": min(values), "high": max(values)}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    lines = [
        "| form | sequences | tokens a second | over dense | over best dense | by bytes | visited | GB | J a token |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        speed, ratio, best = row["speed"], row["ratio"], row["ratio_to_best"]
        spent = "–" if row["joules"] is None else f"{row['joules']:.3f}"
        lines.append(
            f"| {row['form']} | {row['tokens']} | {speed['median']:.0f} ({speed['low']:.0f}-{speed['high']:.0f}) "
            f"| {ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f}) "
            f"| {best['median']:.2f} ({best['low']:.2f}-{best['high']:.2f}) | {row['ratio_by_bytes']:.2f} "
            f"| {100 * row['visited']:.1f} % | {row['bytes'] / 1e9:.2f} | {spent} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
