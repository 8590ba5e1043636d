"""Conditional forms of one model in turns: `python -m benchmarks.conditional_forms --json OUT --text TEXT.jsonl`.

Every layer of a model becomes conditional, without healing, by each kind and share of visited neurons. Models take
turns at a prompt and at decoding, so that a busy machine slows all of them. A share of 1 is the control: it computes
what the dense model does, so that what it gains is the kernel's and not the sparsity's. `free` has no feed-forward
layers, which is the limit. With `--bits` the bits per byte of some text stand beside the speed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.conditional_models import visits_of
from minigpt.assets import DEFAULT_BASE
from minigpt.conditional.convert import relative_error
from minigpt.conditional.distill import ffn_inputs
from minigpt.conditional.kinds import KINDS, kind_named
from minigpt.conditional.settings import ConditionalSettings
from minigpt.conditional.swap import dense_weights, ffn_layers, ffn_paths, put
from minigpt.files import read_jsonl, write_json
from minigpt.healing import bits_per_byte
from minigpt.healing.tokenized import token_text
from minigpt.machine import device_name, versions
from minigpt.models.bench import Workload, measure_speed
from minigpt.models.find import open_model
from minigpt.transformer.calibration import calibration_batches
from minigpt.types import Document

WINDOW = 512
# Characters of a passage, and passages of the calibration and of the measured text.
PASSAGE, CALIBRATION, MEASURED = 3000, 16, 20
FORMS = ["threshold:1", "threshold:0.5", "topk:0.5", "trees:0.01", "free"]


class Free(nn.Module):
    """A feed-forward layer that costs nothing and adds nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(x)


def passages(path: Path, places: slice, count: int) -> list[Document]:
    """Read some passages of a file of JSON lines with `text`."""
    texts = [row["text"][:PASSAGE] for row in read_jsonl(path)]
    return [Document(text=text, source=str(place)) for place, text in enumerate(texts[places][:count])]


def make_form(ref: str, form: str, text: Path, tokens: int) -> tuple[Any, dict[str, float]]:
    """Open a model and make its layers conditional.

    Args:
        ref: the model.
        form: `dense`, `free` or KIND:SHARE.
        text: JSON lines to calibrate on.
        tokens: tokens of calibration.

    Returns:
        The model, and the shares of neurons and weights that a token reads with the error of the layers.
    """
    runtime: Any = open_model(ref, device="cpu", dtype=torch.float32)
    model, (kind, _, share) = runtime.model, form.partition(":")
    layers, facts = ffn_layers(model), {"visited_share": 1.0, "weights_share": 1.0, "error": 0.0}
    if kind == "free":
        name = ffn_paths(model).rows[0].rpartition(".")[0]
        for layer in layers:
            setattr(layer, name, Free())
        return runtime, {"visited_share": 0.0, "weights_share": 0.0, "error": 1.0}
    if kind == "dense":
        return runtime, facts
    batches = calibration_batches(
        runtime.tokenizer, passages(text, slice(0, None, 23), CALIBRATION), window=WINDOW, tokens=tokens,
        batch_tokens=2048,
    )  # fmt: skip
    inputs = ffn_inputs(model, range(len(layers)), batches)
    settings = ConditionalSettings(visited=float(share))
    dense = {index: dense_weights(model, index) for index in inputs}
    new = {index: kind_named(kind).layer(dense[index], x, settings).eval() for index, x in inputs.items()}
    facts["error"] = sum(relative_error(layer, dense[i], inputs[i]) for i, layer in new.items()) / len(new)
    put(model, new)
    return runtime, {**facts, **visits_of(model, inputs, "cpu")}


def measure(models: dict[str, Any], work: Workload) -> dict[str, list[tuple[float, float]]]:
    """Time all models in turns: prompt and decoding in tokens a second."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for model in models.values():
        measure_speed(model, Workload(prompt=work.prompt, decode=4, repeats=1))
    for _ in range(work.repeats):
        for name, model in models.items():
            samples[name].append(measure_speed(model, work))
    return samples


def row_of(name: str, samples: Sequence[tuple[float, float]], first: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return medians, and the ratios to the first model of the same round with their range."""
    row: dict[str, Any] = {"form": name}
    for place, key in enumerate(("prefill", "decode")):
        ratios = sorted(own[place] / base[place] for own, base in zip(samples, first, strict=True))
        row[key] = median(sample[place] for sample in samples)
        row[f"{key}_ratio"] = {"median": median(ratios), "low": ratios[0], "high": ratios[-1]}
    return row


def main() -> None:
    """Make the forms, time them in turns, and write a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file of results")
    parser.add_argument("--text", type=Path, required=True, help="JSON lines with `text`, to calibrate and measure on")
    parser.add_argument("--model", default=DEFAULT_BASE)
    parser.add_argument("--forms", nargs="+", default=FORMS, help="KIND:SHARE, or free")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of calibration text")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--decode", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--bits", action="store_true", help="measure bits per byte, too")
    options = parser.parse_args()
    if unknown := [form for form in options.forms if form.partition(":")[0] not in (*KINDS, "free")]:
        parser.error(f"unknown forms: {', '.join(unknown)}")
    torch.set_num_threads(options.threads)
    forms = ["dense", *options.forms]
    opened = {form: make_form(options.model, form, options.text, options.tokens) for form in forms}
    work = Workload(prompt=options.prompt, decode=options.decode, repeats=options.repeats)
    samples = measure({form: runtime for form, (runtime, _) in opened.items()}, work)
    rows = []
    for form, (runtime, facts) in opened.items():
        row = {**row_of(form, samples[form], samples["dense"]), **facts}
        if options.bits and form != "free":
            text = token_text(runtime.tokenizer, passages(options.text, slice(7, None, 29), MEASURED), WINDOW)
            row["bits_per_byte"] = bits_per_byte(runtime.model, text)
        rows.append(row)
        ratio = row["decode_ratio"]
        print(f"{form:16} decode x{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})", row, flush=True)
    machine = {"device": device_name("cpu"), "threads": options.threads}
    machine["versions"] = versions("benchmark", ("torch", "numba"))
    write_json(options.json, {"machine": machine, "rows": rows})


if __name__ == "__main__":
    main()
