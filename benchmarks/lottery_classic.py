"""The classic lottery-ticket curves: winning, random-mask and re-initialised tickets of networks trained from scratch.

An MLP on scikit-learn's digits (Lenet-300-100 of Frankle and Carbin 2019, section 2) and a small GPT on packaged text.
All tickets of a seed get the same training. Every finished seed and level is a line of the JSON-lines file, and a run
goes on with what is missing; the weights are pruned over all matrices until one of them is empty.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from minigpt.corpus import build_corpus
from minigpt.domain.config import load_domain
from minigpt.files import fingerprint, read_jsonl, write_json
from minigpt.tickets.masks import Masks, Pattern, random_like
from minigpt.tickets.overlap import over_seeds
from minigpt.tickets.rounds import Schedule, Trained, Weights, load_masks, masked, run_rounds

ARMS = ("winning", "random", "reinitialised")
LABELS = {"winning": "winning ticket", "random": "random mask, own values", "reinitialised": "its mask, new values"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of every training: steps, batch, learning rate, warm-up steps and steps between two looks."""

    steps: int
    batch: int
    rate: float
    warmup: int
    look: int


class Arena(Protocol):
    """A network and its data."""

    recipe: Recipe
    better: str  # name of the measure in the picture

    def fresh(self, seed: int) -> nn.Module:
        """Make the network with random weights."""

    def loss(self, network: nn.Module, generator: torch.Generator) -> Tensor:
        """Return the loss on a random training batch."""

    def look(self, network: nn.Module) -> tuple[float, float]:
        """Return the validation loss and the measure on test data."""


class Digits:
    """Lenet-300-100 on the 1,797 digits of scikit-learn: 60 % training, 20 % validation, 20 % test."""

    better = "test accuracy"

    def __init__(self, device: str, recipe: Recipe) -> None:
        from sklearn.datasets import load_digits

        data = load_digits()
        order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
        x, y = torch.tensor(data.data, dtype=torch.float32)[order] / 16, torch.tensor(data.target)[order]
        ends = [round(0.6 * len(y)), round(0.8 * len(y))]
        self.x = [part.to(device) for part in torch.tensor_split(x, ends)]
        self.y = [part.to(device) for part in torch.tensor_split(y, ends)]
        self.device, self.recipe = device, recipe

    def fresh(self, seed: int) -> nn.Module:
        """Make the network; biases start at zero and weights as Glorot and Bengio draw them."""
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
        for weight in network.parameters():
            nn.init.xavier_normal_(weight) if weight.ndim == 2 else nn.init.zeros_(weight)
        return network.to(self.device)

    def loss(self, network: nn.Module, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy of a batch."""
        rows = torch.randint(len(self.y[0]), (self.recipe.batch,), generator=generator).to(self.device)
        return functional.cross_entropy(network(self.x[0][rows]), self.y[0][rows])

    @torch.no_grad()
    def look(self, network: nn.Module) -> tuple[float, float]:
        """Return the validation loss and the test accuracy."""
        loss = functional.cross_entropy(network(self.x[1]), self.y[1])
        return float(loss), float((network(self.x[2]).argmax(1) == self.y[2]).float().mean())


class SmallGPT:
    """A llama of four layers on the text of a packaged domain, read as bytes; measured in bits per byte."""

    better = "held-out bits per byte"
    window = 256

    def __init__(self, device: str, recipe: Recipe, domain: str, limit: int | None) -> None:
        corpus = build_corpus(load_domain(domain))
        self.train, self.dev, self.test = (
            torch.frombuffer(bytearray("\n\n".join(item.text for item in part).encode()[:limit]), dtype=torch.uint8)
            .long()
            .to(device)
            for part in (corpus.train, corpus.dev, corpus.heldout)
        )
        self.device, self.recipe = device, recipe

    def fresh(self, seed: int) -> nn.Module:
        """Make the network as transformers initialises it."""
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=256, hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
            num_key_value_heads=6, max_position_embeddings=self.window, tie_word_embeddings=True,
        )  # fmt: skip
        return LlamaForCausalLM(config).to(self.device)

    def loss(self, network: nn.Module, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy of a batch of windows."""
        return self._loss(network, self._windows(self.train, self.recipe.batch, generator))

    def _loss(self, network: nn.Module, rows: Tensor) -> Tensor:
        with torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.device.startswith("cuda")):
            logits = network(input_ids=rows).logits
        return functional.cross_entropy(logits[:, :-1].float().reshape(-1, 256), rows[:, 1:].reshape(-1))

    def _windows(self, text: Tensor, count: int, generator: torch.Generator) -> Tensor:
        starts = torch.randint(len(text) - self.window, (count,), generator=generator).to(self.device)
        return text[starts[:, None] + torch.arange(self.window, device=self.device)]

    @torch.no_grad()
    def look(self, network: nn.Module) -> tuple[float, float]:
        """Return the validation loss and the bits per byte of 64 windows each, the same ones at every look."""
        losses = []
        for text in (self.dev, self.test):
            rows = self._windows(text, 64, torch.Generator().manual_seed(1))
            losses.append(float(self._loss(network, rows)) / torch.log(torch.tensor(2.0)).item())
        return losses[0], losses[1]


def fit(arena: Arena, weights: Weights, masks: Masks, seed: int, *, steps: int | None = None) -> Trained:
    """Train weights under masks; the measures are those at the lowest validation loss.

    Args:
        arena: network and data.
        weights: all weights by name.
        masks: weights that are trained.
        seed: seed of the batches.
        steps: number of steps, after which the weights are returned unmeasured (None: the whole recipe).
    """
    network, recipe, generator = arena.fresh(0), arena.recipe, torch.Generator().manual_seed(seed)
    known = dict(network.named_parameters())
    with torch.no_grad():
        for name, parameter in known.items():
            parameter.copy_(weights[name])
    kept = [(known[name], mask.to(known[name].device)) for name, mask in masks.items() if not mask.all()]
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.rate, fused=True)
    best = {"loss": float("inf"), "measure": 0.0, "step": 0}
    for step in range(steps if steps is not None else recipe.steps):
        optimizer.param_groups[0]["lr"] = recipe.rate * min(1.0, (step + 1) / max(1, recipe.warmup))
        optimizer.zero_grad(set_to_none=True)
        arena.loss(network, generator).backward()
        optimizer.step()
        with torch.no_grad():
            for parameter, mask in kept:
                parameter.mul_(mask)
        if steps is None and (step + 1) % recipe.look == 0:
            loss, measure = arena.look(network)
            if loss < best["loss"]:
                best = {"loss": loss, "measure": measure, "step": step + 1}
    return Trained(weights={name: value.detach().cpu().clone() for name, value in known.items()}, facts=best)


def levels_from(first: float, factor: float, least: float) -> tuple[float, ...]:
    """List the shares of weights that are left, each the one before times a factor, down to about `least`."""
    levels = [first]
    while levels[-1] * factor >= least:
        levels.append(levels[-1] * factor)
    return tuple(levels)


def tickets_of(arena: Arena, seed: int, levels: Sequence[float], rewind: int, work: Path) -> list[dict[str, Any]]:
    """Run the rounds of one seed, then both controls at every level until a matrix is empty; return the lines."""
    first = {name: value.detach().cpu().clone() for name, value in arena.fresh(seed).named_parameters()}
    names = tuple(name for name, value in first.items() if value.ndim == 2 and "embed" not in name)
    start = fit(arena, first, {}, seed, steps=rewind).weights if rewind else first
    ticket = run_rounds(
        work / f"seed-{seed}",
        start,
        names,
        lambda weights, masks, _number, _checkpoint: fit(arena, weights, masks, seed),
        Schedule(levels=tuple(levels)),
        key=fingerprint(type(arena).__name__, str(arena.recipe), seed, rewind),
    )
    lines = []
    again = {name: value.detach().cpu() for name, value in arena.fresh(seed + 1000).named_parameters()}
    for record in ticket.records:
        lines.append({"arm": "winning", "seed": seed, "remaining": record.remaining, **record.facts})
        if not record.number:
            continue
        masks = load_masks(work / f"seed-{seed}" / f"round-{record.number:02d}" / "masks.safetensors")
        drawn = random_like(masks, seed, Pattern("global"))
        for arm, weights, mask in (("random", start, drawn), ("reinitialised", again, masks)):
            facts = fit(arena, masked(weights, mask), mask, seed).facts
            lines.append({"arm": arm, "seed": seed, "remaining": record.remaining, **facts})
        if record.smallest == 0:
            break
    return [{**line, "level": round(line["remaining"], 4)} for line in lines]


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Average over seeds: for each arm and level the measure and the step of the lowest validation loss."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for arm in ARMS:
        for level in sorted({line["level"] for line in lines if line["arm"] == arm}, reverse=True):
            rows = [line for line in lines if (line["arm"], line["level"]) == (arm, level)]
            points = {name: over_seeds([row[name] for row in rows]) for name in ("measure", "step", "loss")}
            plain = {name: [point.value, point.low, point.high] for name, point in points.items()}
            curves.setdefault(arm, []).append({"remaining": level, "seeds": len(rows), **plain})
    return curves


def draw(curves: Mapping[str, Sequence[Mapping[str, Any]]], better: str, path: Path) -> None:
    """Draw the curves with their intervals: the measure, and the step of the lowest validation loss."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    whole = next(row for row in curves["winning"] if row["remaining"] == 1)
    for axis, name, label in zip(
        axes, ("measure", "step"), (better, "step of the lowest validation loss"), strict=True
    ):
        for arm, rows in curves.items():
            x = [100 * row["remaining"] for row in rows]
            value, low, high = zip(*(row[name] for row in rows), strict=True)
            line = axis.plot(x, value, marker="o", markersize=3, label=LABELS[arm])[0]
            axis.fill_between(x, low, high, alpha=0.15, color=line.get_color())
        axis.axhline(whole[name][0], color="gray", linestyle=":", linewidth=1, label="all weights")
        axis.set(xscale="log", xlabel="weights left, %", ylabel=label)
        axis.invert_xaxis()
    axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def arena_of(options: argparse.Namespace) -> Arena:
    """Make the network and its data as the options say."""
    if options.part == "mlp":
        return Digits(options.device, Recipe(steps=options.steps or 600, batch=60, rate=1.2e-3, warmup=0, look=20))
    steps = options.steps or 1500
    recipe = Recipe(steps=steps, batch=options.batch, rate=1e-3, warmup=100, look=max(1, steps // 30))
    return SmallGPT(options.device, recipe, options.domain, options.limit)


def run_seeds(arena: Arena, options: argparse.Namespace, common: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run the seeds that have no lines yet, as long as there is time, and return the lines of all."""
    path, started, longest = options.json.with_suffix(".lines.jsonl"), time.perf_counter(), 0.0
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row for row in read_jsonl(path) if row.items() >= common.items()] if path.exists() else []
    levels = levels_from(0.8, options.factor, options.least)
    for seed in range(options.seeds):
        if any(row["seed"] == seed for row in lines):
            continue
        if time.perf_counter() - started + 1.1 * longest > options.limit_seconds:
            print(f"seed {seed}: no time left", flush=True)
            break
        began = time.perf_counter()
        rows = [{**common, **row} for row in tickets_of(arena, seed, levels, options.rewind, options.work)]
        with path.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        lines += rows
        longest = max(longest, time.perf_counter() - began)
        print(f"seed {seed}: {len(rows)} trainings in {time.perf_counter() - began:.0f} s", flush=True)
    return lines


def options_of() -> argparse.Namespace:
    """Read the command line; what is not given depends on the part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("mlp", "gpt"), required=True)
    parser.add_argument("--json", type=Path, required=True, help="curves; lines of finished seeds stand beside it")
    parser.add_argument("--picture", type=Path, help="PNG with the curves")
    parser.add_argument("--work", type=Path, required=True, help="folder of the rounds")
    parser.add_argument("--seeds", type=int, help="[10 for the MLP, 3 for the GPT]")
    parser.add_argument("--steps", type=int, help="steps of every training [600; 1500 for the GPT]")
    parser.add_argument("--batch", type=int, default=64, help="windows of a step of the GPT")
    parser.add_argument("--factor", type=float, help="share of the weights left that a round keeps [0.8; 0.64]")
    parser.add_argument("--least", type=float, default=0.002, help="lowest share of weights left")
    parser.add_argument("--rewind", type=int, help="step that survivors are rewound to [0; 50 for the GPT]")
    parser.add_argument("--domain", default="medical")
    parser.add_argument("--limit", type=int, help="bytes of each text, for a trial [all]")
    parser.add_argument("--limit-seconds", type=float, default=1e9, help="begin no seed that would end later")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    for name, mlp, gpt in (("seeds", 10, 3), ("factor", 0.8, 0.64), ("rewind", 0, 50)):
        if getattr(options, name) is None:
            setattr(options, name, mlp if options.part == "mlp" else gpt)
    return options


def main() -> None:
    """Run the seeds that are missing, then write the curves and the picture."""
    options = options_of()
    arena = arena_of(options)
    common = {"part": options.part, "recipe": str(arena.recipe), "rewind": options.rewind, "factor": options.factor}
    curves = summary(run_seeds(arena, options, common))
    write_json(options.json, {**common, "device": options.device, "measure": arena.better, "curves": curves})
    for arm, points in curves.items():
        for point in points:
            value, low, high = point["measure"]
            print(f"{arm:14} {point['remaining']:7.2%} {value:.4f} ({low:.4f}-{high:.4f}) step {point['step'][0]:.0f}")
    if options.picture:
        draw(curves, arena.better, options.picture)


if __name__ == "__main__":
    main()
