"""Whole models with conditional layers: `python -m benchmarks.conditional_models --json OUT`.

`speed` times models by turns, one sequence at a time: a prompt at once, then token by token; held-out bits per byte
stand beside it. `sweep` makes every layer of one model conditional, for each kind and share of visited neurons, and
measures bits per byte and questions; its rows are points of a curve. A sweep skips what is in its results.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from minigpt.assets import DEFAULT_BASE
from minigpt.conditional.convert import relative_error
from minigpt.conditional.distill import DistillOptions, distill, ffn_inputs
from minigpt.conditional.folder import layers_in
from minigpt.conditional.kinds import KINDS, kind_named
from minigpt.conditional.settings import ConditionalSettings
from minigpt.conditional.swap import conditional, dense_weights, ffn_layers, ffn_paths
from minigpt.corpus import build_corpus
from minigpt.corpus.selection import take_bytes
from minigpt.domain.config import load_domain
from minigpt.evaluation import ItemScores, Suite, evaluate, suite_for, summarize
from minigpt.files import read_json, write_json
from minigpt.healing import Recipe, train
from minigpt.healing.teacher import teacher_of
from minigpt.healing.tokenized import token_text
from minigpt.machine import device_name, measuring_dtype, release, versions
from minigpt.models.bench import Workload, measure_speed
from minigpt.models.find import open_model
from minigpt.runtimes.scoring import scoring_model
from minigpt.transformer.calibration import calibration_batches
from minigpt.transformer.ends import document_end

QUESTIONS = "accuracy_norm"


def main() -> None:
    """Run one of the two measurements."""
    options = arguments().parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    if options.mode == "speed":
        write_json(options.json, speed(options))
    else:
        sweep(options)


def arguments() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", nargs="?", choices=("speed", "sweep"), default="speed")
    parser.add_argument("--json", type=Path, required=True, help="file of results")
    parser.add_argument("--models", nargs="+", default=[DEFAULT_BASE], metavar="[NAME=]REF", help="first: reference")
    parser.add_argument("--domain", help="name or file of the domain that is measured; speed alone without it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="type to compute in")
    parser.add_argument("--threads", type=int, help="threads of the processor")
    parser.add_argument("--limit", type=int, help="most passages of each text and questions of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompt", type=int, default=256, help="tokens that are read at once")
    parser.add_argument("--decode", type=int, default=64, help="tokens that are read one by one")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--visited", nargs="+", type=float, default=[0.5, 0.25, 0.125, 0.0625, 0.03, 0.01, 0.003])
    parser.add_argument("--l1", nargs="+", type=float, default=[0.0, 0.02, 0.1, 0.5], help="penalties, for relu")
    parser.add_argument("--tokens", type=int, default=32768, help="tokens of calibration text")
    parser.add_argument("--distill-steps", type=int, default=300)
    parser.add_argument("--distill-tokens", type=int, default=2048)
    parser.add_argument("--distill-rate", type=float, default=5e-4)
    parser.add_argument("--heal-steps", type=int, default=0, help="steps of healing end to end; 0 heals nothing")
    parser.add_argument("--heal-tokens", type=int, default=8192, help="tokens of such a step")
    parser.add_argument("--heal-rate", type=float, default=3e-4)
    parser.add_argument("--window", type=int, default=512)
    return parser


def named(models: Sequence[str]) -> dict[str, str]:
    """Split `NAME=REF`; a reference without a name is its own."""
    result = {}
    for model in models:
        name, sign, ref = model.partition("=")
        plain = sign and "/" not in name and ":" not in name  # packaged assets have signs of equality, too
        result[name if plain else model] = ref if plain else model
    return result


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Describe where figures come from."""
    return {
        "device": device_name(options.device),
        "threads": torch.get_num_threads(),
        "dtype": str(precision(options)),
        "versions": versions("benchmark", ("torch", "transformers", "numba")),
    }


def precision(options: argparse.Namespace) -> Any:
    """Return the type to compute in: as named, or that of measurements on the device."""
    return getattr(torch, options.dtype) if options.dtype else measuring_dtype(options.device)


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Time models by turns, and measure what they cost on held-out text."""
    work = Workload(prompt=options.prompt, decode=options.decode, repeats=options.repeats)
    models = {
        name: open_model(ref, device=options.device, dtype=precision(options))
        for name, ref in named(options.models).items()
    }
    for model in models.values():  # compiles kernels, fills caches
        measure_speed(model, replace(work, decode=4))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for _ in range(options.repeats):
        for name, model in models.items():
            samples[name].append(measure_speed(model, work))
    suite = texts_of(options)[1] if options.domain else None
    rows = []
    for name, model in models.items():
        row: dict[str, Any] = {
            "model": name,
            "parameters": model.parameters,
            "bytes": model.bytes,
            "prefill": median(prefill for prefill, _ in samples[name]),
            "decode": median(decode for _, decode in samples[name]),
            "samples": samples[name],
        }
        first = rows[0] if rows else row
        row["ratios"] = {key: row[key] / first[key] for key in ("prefill", "decode")}
        if suite is not None:
            row["metrics"] = summarize(evaluate(scoring_model(model), model.tokenizer, suite, **batch(options)))
        rows.append(row)
        print(f"{name}: prefill {row['prefill']:.1f}, decode {row['decode']:.1f} tokens/s {cost_of(row)}", flush=True)
    return {"machine": machine(options), "workload": work, "domain": options.domain, "rows": rows}


def batch(options: argparse.Namespace) -> dict[str, int]:
    """Return the tokens of a forward pass of an evaluation."""
    return {"batch_tokens": 1024 if options.device == "cpu" else 16384}


def cost_of(row: Mapping[str, Any]) -> str:
    """Write the bits per byte of a row, where they were measured."""
    costs = [f"{one.value:.4f} on {one.task}" for one in row.get("metrics", ()) if one.metric == "bits_per_byte"]
    return f"({', '.join(costs)} bits per byte)" if costs else ""


def texts_of(options: argparse.Namespace) -> tuple[Any, Suite]:
    """Read the corpus of the domain, and what is measured of it: own text and questions, without general text."""
    corpus = build_corpus(load_domain(options.domain), seed=options.seed)
    suite = suite_for(corpus, None, max_questions=options.limit, seed=options.seed)
    texts = {task: documents[: options.limit] for task, documents in suite.texts.items()}
    return corpus, replace(suite, texts=texts, recitations={}, parts={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point of a sweep: a kind and what a token is to visit."""

    kind: str
    visited: float
    l1: float = 0.0

    @property
    def name(self) -> str:
        """Name of the point in the results."""
        return f"{self.kind} l1={self.l1:g}" if self.kind == "relu" else f"{self.kind} {self.visited:g}"


def points_of(kinds: Sequence[str], visited: Sequence[float], penalties: Sequence[float]) -> list[Point]:
    """List the points: for `relu` a penalty decides what is visited, for all others the share itself."""
    shares = [Point(kind=kind, visited=share) for kind in kinds if kind != "relu" for share in visited]
    return shares + [Point(kind="relu", visited=1.0, l1=l1) for l1 in penalties if "relu" in kinds]


def sweep(options: argparse.Namespace) -> None:
    """Measure all points that are not in the results yet, and write after each."""
    corpus, suite = texts_of(options)
    runtime: Any = open_model(options.models[0], device=options.device, dtype=torch.float32)
    model, tokenizer = runtime.model, runtime.tokenizer
    batches = calibration_batches(
        tokenizer, corpus.calibration, window=options.window, tokens=options.tokens, batch_tokens=4096
    )
    rows = list(read_json(options.json, dict)["rows"]) if options.json.exists() else []
    dense = measured(model, tokenizer, suite, options)
    head = {
        "machine": machine(options),
        "model": options.models[0],
        "domain": options.domain,
        "dense": summarize(dense),
    }
    head["settings"] = {name: str(value) for name, value in vars(options).items()}
    inputs = ffn_inputs(model, range(len(ffn_layers(model))), batches)
    for point in points_of(options.kinds, options.visited, options.l1):
        if any(row["name"] == point.name for row in rows):
            continue
        rows.append(point_row(point, model, tokenizer, inputs, corpus, suite, dense, options))
        write_json(options.json, {**head, "rows": rows})
        print(f"{point.name}: {rows[-1]['bits_per_byte_ratio']:.4f} of dense, {rows[-1]['visited_share']:.2%} visited")


def point_row(
    point: Point, model: Any, tokenizer: Any, inputs: Mapping[int, Any], corpus: Any, suite: Suite, dense: ItemScores,
    options: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """Convert, heal and measure one point; the model is dense again afterwards."""
    started = time.perf_counter()
    settings = ConditionalSettings(visited=point.visited, l1=point.l1)
    layers, errors = {}, []
    for index, cached in inputs.items():
        weights, x = dense_weights(model, index), cached.to(options.device)
        seen, unseen = x[: -len(x) // 5], x[-len(x) // 5 :]
        layer = kind_named(point.kind).layer(weights, seen, settings)
        if kind_named(point.kind).trained:
            recipe = DistillOptions(
                steps=options.distill_steps, batch_tokens=options.distill_tokens, lr=options.distill_rate
            )
            distill(layer, weights, seen, options=recipe)
        errors.append(relative_error(layer.eval(), weights, unseen))
        layers[index] = layer
    with conditional(model, layers):
        subject = healed(model, tokenizer, corpus, options) if options.heal_steps else model
        scores = measured(subject, tokenizer, suite, options)
        visits = visits_of(subject, inputs, options.device)
    del subject
    release()
    task = next(iter(dense.texts))
    return {
        "name": point.name, "kind": point.kind, "visited": point.visited, "l1": point.l1, **visits,
        "error": sum(errors) / len(errors), "metrics": summarize(scores, parent=dense),
        "bits_per_byte_ratio": scores.texts[task].bits_per_byte / dense.texts[task].bits_per_byte,
        "questions": {one.task: one.value for one in summarize(scores) if one.metric == QUESTIONS},
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


def visits_of(model: Any, inputs: Mapping[int, Any], device: str) -> dict[str, float]:
    """Return the shares of neurons that a token visits and of weights that it reads, of those of the dense layers."""
    layers, size, hidden = layers_in(model), int(model.config.intermediate_size), int(model.config.hidden_size)
    matrices = 1 + len(ffn_paths(model).rows)
    samples = {index: inputs[index][:1024].to(device) for index in layers}
    neurons = sum(layer.visited_neurons(samples[index]) for index, layer in layers.items())
    weights = sum(layer.visited_weights(samples[index]) for index, layer in layers.items())
    return {
        "visited_share": neurons / (len(layers) * size),
        "weights_share": weights / (len(layers) * size * hidden * matrices),
    }


def measured(model: Any, tokenizer: Any, suite: Suite, options: argparse.Namespace) -> ItemScores:
    """Score a model in the type of measurements."""
    with torch.autocast(
        torch.device(options.device).type, torch.bfloat16, enabled=precision(options) == torch.bfloat16
    ):
        return evaluate(model.eval(), tokenizer, suite, **batch(options))


def healed(model: Any, tokenizer: Any, corpus: Any, options: argparse.Namespace) -> Any:
    """Return a copy of a model with conditional layers, trained to give the answers of the dense model."""
    student, teacher = copy.deepcopy(model), open_model(options.models[0], device=options.device, dtype=torch.float32)
    recipe = Recipe(
        steps=options.heal_steps, tokens_per_step=options.heal_tokens, window=options.window, distill=1.0,
        learning_rate=options.heal_rate, evaluate_every=max(1, options.heal_steps // 4),
    )  # fmt: skip
    end = document_end(tokenizer, model.config, model.generation_config)
    dev = token_text(tokenizer, take_bytes(corpus.dev, 64_000), options.window)
    text = token_text(tokenizer, corpus.train, options.window, end=end)
    train(
        student, text, dev, recipe, teacher=teacher_of(teacher.model, None, student), seed=options.seed, backs_off=True
    )
    return student


if __name__ == "__main__":
    main()
