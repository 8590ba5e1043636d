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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lottery_nets import Arena, Digits, Recipe, Size, SmallGPT, fit

from minigpt.files import fingerprint, read_jsonl, write_json
from minigpt.tickets.masks import Pattern, random_like
from minigpt.tickets.overlap import over_seeds
from minigpt.tickets.rounds import Schedule, load_masks, masked, run_rounds

ARMS = ("winning", "random", "reinitialised")
LABELS = {"winning": "winning ticket", "random": "random mask, own values", "reinitialised": "its mask, new values"}


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
        key=fingerprint(arena.name, str(arena.recipe), seed, rewind),
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
    size = Size(width=options.width, layers=options.layers, window=options.window)
    return SmallGPT(options.device, recipe, options.domain, options.limit, size)


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
    for name, default in asdict(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"of the GPT [{default}]")
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
    if options.part == "gpt":
        common["network"] = arena.name
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
