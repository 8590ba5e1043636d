"""Delta tickets on several domains: how few weights a specialist has to change, against controls of the same budget.

Everything that is chosen is chosen by dev text. Held-out text is only reported, with paired intervals against the tuned
parent, and for controls also against the ticket. Each model is measured from its stored file. One JSON line a variant;
variants whose line stands in the results are not made again, so that parts fit into short calls.

Parts: `choose` tries settings at 5 %, `fractions` makes tickets of 1, 2, 5 and 10 % with the best of them, `controls`
adds the random mask, LoRA of the same bytes, one shot, and training without a mask, `merge` merges pairs of domains,
`bytes` counts what a dozen tickets take and times swapping them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from delta_bench import DeltaBench
from delta_merging import merge_rows, storage_row

from minigpt import assets
from minigpt.files import fingerprint, read_jsonl
from minigpt.healing import Recipe, TuneSettings, train
from minigpt.machine import device_name, release
from minigpt.tickets.delta import in_dtype, parameters_of
from minigpt.tickets.delta_masks import random_mask
from minigpt.tickets.delta_settings import DeltaSettings
from minigpt.tickets.delta_training import find_ticket, rewind, round_recipe, train_masked

MAIN = 0.05
FRACTIONS = (0.01, 0.02, 0.05, 0.1)
ARMS = ("random-mask", "lora-0.0005", "lora-0.002", "one-shot", "one-shot-untrained", "no-mask")
ROUNDED = ("int8", "int4")
PARTS = ("choose", "fractions", "controls", "merge", "bytes")
# Settings that are compared on dev text at MAIN; each line changes the best of the lines before it.
STEPS_OF_CHOICE: tuple[tuple[dict[str, Any], ...], ...] = (
    ({"learning_rate": 4e-4}, {"learning_rate": 1e-3}, {"learning_rate": 2e-3}),
    ({"distill": 0.0}, {"distill": 1.0}),
    ({"score": "fisher"}, {"scope": "layer"}),
    ({"rounds": 1}, {"rounds": 5}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Training of every variant: the steps of all rounds together, and the recipe of their batches.

    Attributes:
        steps: steps of all rounds together.
        recipe: recipe of their batches.
        fractions: shares of the weights that tickets change; the first of them is made first.
        arms: names of the controls that are made.
        rounded: types in which the ticket of 5 % is stored besides.
    """

    steps: int
    recipe: Recipe
    fractions: tuple[float, ...] = FRACTIONS
    arms: tuple[str, ...] = ARMS
    rounded: tuple[str, ...] = ROUNDED


class Rows:
    """Results as JSON lines, by the key of what they were made from; lines of earlier calls are kept."""

    def __init__(self, path: Path, common: dict[str, Any], until: float) -> None:
        self.path, self.common, self.until, self.longest = path, common, until, 30.0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, dict[str, Any]] = {row["key"]: row for row in read_jsonl(path)} if path.exists() else {}

    def get(self, domain: str, tag: str, settings: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Return the row of a variant; make it if it is missing and there is time, else return None."""
        key = fingerprint(self.common, domain, tag, settings)
        if key in self.rows:
            return self.rows[key]
        started = time.perf_counter()
        if started + 1.2 * self.longest > self.until:
            print(f"{domain} {tag}: no time left", flush=True)
            return None
        row = {"key": key, **self.common, "domain": domain, "tag": tag, "settings": settings, **make()}
        release()
        seconds = time.perf_counter() - started
        self.longest = max(self.longest, seconds)
        self.rows[key] = row = row | {"seconds": round(seconds, 1)}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(domain, tag, json.dumps({name: row[name] for name in SHOWN if name in row}), summary(row), flush=True)
        return row


SHOWN = ("dev", "changed", "bytes_vs_parent", "seconds", "choice")


def summary(row: dict[str, Any]) -> str:
    """Write the ratios of each text of a row, and the paired intervals of the differences."""
    lines = []
    for task, values in row.get("measured", {}).items():
        for other in ("tuned", "ticket", "own"):
            if "bits_per_byte" in task and other in values:
                low, high = values[other]["difference"][1:]
                lines.append(f"{task} / {other} {values[other]['ratio']:.4f} [{low:+.4f}, {high:+.4f}]")
    return "; ".join(lines)


def ticket_row(bench: DeltaBench, tag: str, fraction: float, settings: DeltaSettings, budget: Budget) -> dict[str, Any]:
    """Find a ticket in rounds, store it, and note its dev loss and sizes."""
    model = bench.fresh(bench.tuned)
    teacher = bench.teacher() if settings.distill else None
    _, trainings = find_ticket(
        model, bench.parent, fraction, settings, bench.text, bench.dev, budget.recipe, teacher=teacher
    )
    _, sizes = bench.stored(tag, model, settings.values)
    return {"dev": best(trainings[-1]), "rounds": [best(training) for training in trainings], **sizes}


def best(training: Any) -> float:
    """Return the lowest dev loss of a training."""
    return min(loss for _, loss in training.dev_losses)


def choose(rows: Rows, bench: DeltaBench, start: DeltaSettings, budget: Budget) -> DeltaSettings | None:
    """Choose settings by dev loss at 5 %, one line of `STEPS_OF_CHOICE` after the other; None without time."""
    current, lowest = start, float("inf")
    for line in ({},), *STEPS_OF_CHOICE:
        tried = []
        for changes in line:
            settings = replace(current, **changes)
            tag = "choice-" + fingerprint(settings)[:8]

            def make(settings: DeltaSettings = settings, tag: str = tag) -> dict[str, Any]:
                return {"choice": asdict(settings), **ticket_row(bench, tag, MAIN, settings, budget)}

            row = rows.get(bench.name, tag, asdict(settings), make)
            if row is None:
                return None
            tried.append((row["dev"], settings))
        loss, settings = min(tried, key=lambda pair: pair[0])
        if loss < lowest:
            current, lowest = settings, loss
    return current


def measured_row(bench: DeltaBench, tag: str, row: dict[str, Any], weights: Any, *others: str) -> dict[str, Any]:
    """Measure weights on held-out text against the parent, the tuned parent and stored others."""
    references = {"parent": bench.measured("parent", bench.parent), "tuned": bench.measured("tuned", bench.tuned)}
    for name, other in zip(("ticket", "own"), others, strict=False):
        references[name] = bench.measured(other, bench.weights_of(other))
    return row | {"measured": bench.against(tag, weights, references)}


def fractions(rows: Rows, bench: DeltaBench, settings: DeltaSettings, budget: Budget) -> None:
    """Make and measure tickets of each fraction, and the ticket of 5 % in 8 and 4 bits."""
    rows.get(bench.name, "tuned", bench.tuning, lambda: measured_row(bench, "tuned", {}, bench.tuned))
    for fraction in sorted(budget.fractions, key=lambda share: share != MAIN):
        tag = f"ticket-{fraction:g}"

        def make(tag: str = tag, fraction: float = fraction) -> dict[str, Any]:
            row = ticket_row(bench, tag, fraction, settings, budget)
            return measured_row(bench, tag, row, bench.weights_of(tag))

        rows.get(bench.name, tag, asdict(settings), make)
    for values in budget.rounded if MAIN in budget.fractions else ():
        tag = f"ticket-{MAIN:g}-{values}"

        def rounded(tag: str = tag, values: Any = values) -> dict[str, Any]:
            weights, sizes = bench.ticket_of(tag, bench.weights_of(f"ticket-{MAIN:g}"), values)
            return measured_row(bench, tag, sizes, weights, f"ticket-{MAIN:g}")

        rows.get(bench.name, tag, asdict(settings), rounded)


def controls(rows: Rows, bench: DeltaBench, settings: DeltaSettings, budget: Budget) -> None:
    """Make and measure the controls of the ticket of 5 %: the same text, teacher and steps for all that train."""
    ticket = f"ticket-{MAIN:g}"
    if not (bench.work / ticket).exists():
        print(f"{bench.name}: the part fractions comes before controls", flush=True)
        return
    for tag, make in control_variants(bench, settings, budget):
        if tag not in budget.arms:
            continue

        def measure(tag: str = tag, make: Callable[[str], dict[str, Any]] = make) -> dict[str, Any]:
            row = make(tag)
            weights = row.pop("weights", None)
            return measured_row(bench, tag, row, bench.weights_of(tag) if weights is None else weights, ticket)

        rows.get(bench.name, tag, asdict(settings), measure)


def control_variants(
    bench: DeltaBench, settings: DeltaSettings, budget: Budget
) -> Iterator[tuple[str, Callable[[str], dict[str, Any]]]]:
    """Yield the controls by name, each with the function that trains and stores it."""
    yield "random-mask", lambda tag: random_row(bench, tag, settings, budget)
    for rate in (5e-4, 2e-3):
        yield f"lora-{rate:g}", lambda tag, rate=rate: lora_row(bench, tag, settings, budget, rate)
    one = replace(settings, rounds=1)
    yield "one-shot", lambda tag: ticket_row(bench, tag, MAIN, one, budget)
    yield "one-shot-untrained", lambda tag: ticket_row(bench, tag, MAIN, replace(one, steps=0), budget)
    yield "no-mask", lambda tag: ticket_row(bench, tag, 1.0, one, budget)


def random_row(bench: DeltaBench, tag: str, settings: DeltaSettings, budget: Budget) -> dict[str, Any]:
    """Train a random mask of the ticket's densities, from the tuned parent's values there, for all steps."""
    model = bench.fresh(bench.tuned)
    changes = bench.weights_of(f"ticket-{MAIN:g}")
    like = {name: changes[name] != before for name, before in bench.parent.items()}
    mask = random_mask(like, 0)
    rewind(model, bench.parent, mask)
    recipe = round_recipe(budget.recipe, settings, budget.steps)
    teacher = bench.teacher() if settings.distill else None
    training = train_masked(model, mask, bench.text, bench.dev, recipe, teacher=teacher)
    _, sizes = bench.stored(tag, model)
    return {"dev": best(training), **sizes}


def lora_row(bench: DeltaBench, tag: str, settings: DeltaSettings, budget: Budget, rate: float) -> dict[str, Any]:
    """Train LoRA on all linear layers of the parent, with the rank whose bf16 factors take the ticket's bytes."""
    model, allowed = bench.fresh(), bench.sizes(f"ticket-{MAIN:g}")["bytes"]
    named = model.named_modules()
    linear = [module for name, module in named if isinstance(module, torch.nn.Linear) and "head" not in name]
    per_rank = 2 * sum(module.in_features + module.out_features for module in linear)
    rank = max(1, round(allowed / per_rank))
    recipe = replace(
        round_recipe(budget.recipe, settings, budget.steps), adapter="lora", rank=rank, learning_rate=rate, dropout=0.0
    )
    teacher = bench.teacher() if settings.distill else None
    training = train(model, bench.text, bench.dev, recipe, teacher=teacher)
    sizes = {"rank": rank, "bytes": rank * per_rank, "bytes_vs_parent": rank * per_rank / bench_bytes(bench)}
    # Merged and in fp32: rounding to bf16 would count against the adapters, which are stored apart.
    return {"dev": best(training), "weights": in_dtype(parameters_of(model), torch.float32), **sizes}


def bench_bytes(bench: DeltaBench) -> int:
    """Return the bytes of the parent in bf16."""
    return 2 * sum(tensor.numel() for tensor in bench.parent.values())


def run_domain(rows: Rows, bench: DeltaBench, parts: list[str], start: DeltaSettings, budget: Budget) -> None:
    """Run the parts of one domain in order."""
    settings: DeltaSettings | None = start
    if "choose" in parts:
        settings = choose(rows, bench, start, budget)
        print(f"{bench.name}: chosen {settings}", flush=True)
    if settings is None:
        return
    if "fractions" in parts:
        fractions(rows, bench, settings, budget)
    if "controls" in parts:
        controls(rows, bench, settings, budget)


def main() -> None:
    """Run the parts that have no line in the results yet, as long as there is time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the domains' YAML files")
    parser.add_argument("--json", type=Path, required=True, help="JSON lines of the results")
    parser.add_argument("--work", type=Path, required=True, help="folder of tuned parents, tickets and scores")
    parser.add_argument("--domains", default="medical,law,finance")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--base", default=assets.DEFAULT_BASE)
    parser.add_argument("--settings", type=json.loads, default={}, help='fields of DeltaSettings: {"rounds": 2}')
    parser.add_argument("--steps", type=int, default=900, help="steps of every variant, all rounds together")
    parser.add_argument("--tune", type=json.loads, default={}, help='fields of TuneSettings: {"steps": 100}')
    parser.add_argument("--fractions", type=json.loads, default=FRACTIONS, help="shares that tickets change: [0.05]")
    parser.add_argument(
        "--merge-healing", type=json.loads, default=(), help="steps and rate of each healing of a merge: [[200, 1e-3]]"
    )
    parser.add_argument("--arms", default=",".join(ARMS), help="controls that are made")
    parser.add_argument("--rounded", default=",".join(ROUNDED), help="types in which the ticket of 5 % is stored, too")
    parser.add_argument("--limit", type=int, help="bytes of each text that is read, for a trial [all]")
    parser.add_argument("--limit-seconds", type=float, default=1e9, help="start no variant that would end later")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    names, parts = given.domains.split(","), given.parts.split(",")
    if strange := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(strange))}")
    until = time.perf_counter() + given.limit_seconds
    tune = TuneSettings(**{"steps": 200, "learning_rate": 2e-4, "evaluate_every": 50, "muon": (), **given.tune})
    arms = tuple(given.arms.split(","))
    budget = Budget(
        steps=given.steps, recipe=tune.recipe(), fractions=tuple(given.fractions), arms=arms,
        rounded=tuple(filter(None, given.rounded.split(","))),
    )  # fmt: skip
    common = {"base": given.base, "device": device_name(given.device), "steps": given.steps, "limit": given.limit}
    rows = Rows(given.json, common, until)

    def bench(name: str) -> DeltaBench:
        return DeltaBench(given.data / f"{name}.yaml", given.base, given.device, given.work / name, tune, given.limit)

    start = DeltaSettings(**{"steps": given.steps, **given.settings})
    if {"choose", "fractions", "controls"} & set(parts):
        for name in names:
            run_domain(rows, bench(name), parts, start, budget)
            release()
    if "merge" in parts:
        merge_rows(rows, [bench(name) for name in names], f"ticket-{MAIN:g}", given.merge_healing)
    if "bytes" in parts:
        storage_row(rows, given.work, given.base, names)


if __name__ == "__main__":
    main()
