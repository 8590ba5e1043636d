"""Depth methods together with 4-bit weights, in both orders, before and after healing.

"prune, quantize" chooses layers on the full-precision parent; "quantize, prune" chooses them on the parent whose
projections went through NF4 first. NF4 needs no data and treats every matrix by itself, so both orders give the same
weights for the same layers. Only the choice can differ, and for `deepest` not even that.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from reading import Reader, ratios

from minigpt import assets
from minigpt.files import read_jsonl
from minigpt.healing import Recipe, train
from minigpt.healing.recipe import RECIPES
from minigpt.healing.tokenized import token_text
from minigpt.machine import device_name
from minigpt.methods import method_named
from minigpt.methods.material import Material
from minigpt.methods.norms import weight_norms
from minigpt.methods.ranking import choose
from minigpt.pipeline.overrides import apply_overrides
from minigpt.pruning.apply import apply_plan
from minigpt.transformer import stats
from minigpt.transformer.arch import parameters_of, shape_of
from minigpt.transformer.nf4 import PLAIN_BYTES, four_bit
from minigpt.types import PrunePlan

ORDERS = ("prune, quantize", "quantize, prune")


class Bench(Reader):
    """The parent as it is and in 4 bits, with the layers that every method chooses on each."""

    def __init__(self, domain: str, base: str, device: str, tokens: int, limit: int | None) -> None:
        super().__init__(domain, base, device, limit)
        self.parent, self.batches = self.model(), self.calibration(tokens)
        self.read_texts = self.texts(self.tokenizer)
        self.statistics: dict[str, stats.ActivationStats] = {}
        self.before = self.read(self.parent, self.read_texts)
        self.known: dict[tuple[Any, ...], list[dict[str, Any]]] = {}

    def plan(self, method: str, order: str, layers: int) -> tuple[PrunePlan, float]:
        """Choose the layers that a method keeps, in this order, and time the choice (statistics are collected once)."""
        started = time.perf_counter()
        with four_bit(self.parent) if order == ORDERS[1] else nullcontext():
            material = Material(
                model=self.parent,
                batches=self.batches,
                statistics=self.statistics_of(order),
                norms=weight_norms(self.parent),
            )
            shape = replace(shape_of(self.parent), layers=layers)
            plan = choose(method_named(method), material, shape, None, base_model="")
        return plan, time.perf_counter() - started

    def statistics_of(self, order: str) -> stats.ActivationStats:
        """Collect, once for each order, the statistics of the parent in the form that layers are chosen on."""
        if order not in self.statistics:
            self.statistics[order] = stats.collect(self.parent, self.batches)
        return self.statistics[order]

    def measured(self, model: Any) -> Iterator[dict[str, Any]]:
        """Measure the model in 16 bits, then with its projections in 4 bits."""
        parameters = parameters_of(model)
        yield self.row(model, weights="bf16", bytes=PLAIN_BYTES * parameters, parameters=parameters)
        with four_bit(model) as size:
            yield self.row(model, weights="nf4", bytes=size.bytes, parameters=parameters)

    def row(self, model: Any, **facts: Any) -> dict[str, Any]:
        """Measure bits per byte and accuracies, and put them into a line with `facts`."""
        bits = self.read(model, self.read_texts)
        return {
            **facts,
            "bits": bits,
            "vs_parent": ratios(bits, self.before),
            "accuracy": self.ask(model, self.tokenizer),
        }

    def rows(self, method: str, order: str, fraction: float, recipe: Recipe | None) -> Iterator[dict[str, Any]]:
        """Measure one method at one size in one order: pruned and, with a recipe, healed."""
        layers = shape_of(self.parent).layers
        plan, seconds = self.plan(method, order, layers - round(fraction * layers))
        facts = {
            "method": method,
            "order": order,
            "fraction": fraction,
            "removed": [layer for layer in range(layers) if layer not in plan.layers],
            "merges": plan.merges,
            "choice_seconds": round(seconds, 3),
        }
        same = (plan.layers, plan.merges)
        if same not in self.known:
            found = self.known.setdefault(same, [])
            for row in self.outcomes(plan, recipe):
                found.append(row)
                yield {**facts, **row}
        else:
            yield from ({**facts, **row} for row in self.known[same])

    def outcomes(self, plan: PrunePlan, recipe: Recipe | None) -> Iterator[dict[str, Any]]:
        """Measure the model that a choice of layers gives, pruned and, with a recipe, healed."""
        model = apply_plan(deepcopy(self.parent), plan)
        for row in self.measured(model):
            yield {"state": "pruned", **row}
        if recipe is None:
            return
        text = token_text(self.tokenizer, self.corpora.domain.train, recipe.window)
        training = train(model, text, self.read_texts["dev"], recipe)
        healing = {"recipe": training.recipe, "best_step": training.best_step, "seconds": training.seconds}
        for row in self.measured(model):
            yield {"state": "healed", "healing": healing, **row}


def finished(path: Path, common: dict[str, Any], recipe: Recipe | None) -> set[tuple[str, str | None, float]]:
    """Read method, order and fraction of the combinations whose last line is in the results."""
    last = "pruned" if recipe is None else "healed"
    rows = read_jsonl(path) if path.exists() else []
    return {
        (row["method"], row["order"], row["fraction"])
        for row in rows
        if common.items() <= row.items() and row["weights"] == "nf4" and row["state"] in ("parent", last)
    }


def main() -> None:
    """Measure the parent and every combination, and append one line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", required=True)
    parser.add_argument("--base", default=assets.DEFAULT_BASE)
    parser.add_argument("--methods", default="shortgpt,deeper-layers,deepest")
    parser.add_argument("--fractions", default="0.1,0.25,0.4", help="of the layers, removed")
    parser.add_argument("--heal", type=json.loads, help='fields of the deeper-layers recipe: {"steps": "600"}')
    parser.add_argument("--tokens", type=int, default=65536, help="of calibration text")
    parser.add_argument("--limit", type=int, help="bytes of each text that is read, for a trial [all]")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    bench = Bench(chosen.domain, chosen.base, chosen.device, chosen.tokens, chosen.limit)
    recipe = None if chosen.heal is None else apply_overrides(RECIPES["deeper-layers"], chosen.heal)
    common = {"domain": chosen.domain, "base": chosen.base, "device": device_name(chosen.device), "heal": chosen.heal}
    done = finished(chosen.results, common, recipe)
    with chosen.results.open("a", encoding="utf-8") as stream:

        def write(row: dict[str, Any]) -> None:
            stream.write(json.dumps({**common, **row}) + "\n")
            stream.flush()

        if ("parent", None, 0.0) not in done:
            for row in bench.measured(bench.parent):
                write({"method": "parent", "order": None, "fraction": 0.0, "removed": [], "state": "parent", **row})
        asked = product(chosen.methods.split(","), map(float, chosen.fractions.split(",")), ORDERS)
        for method, fraction, order in asked:
            if (method, order, fraction) not in done:
                for row in bench.rows(method, order, fraction, recipe):
                    write(row)


if __name__ == "__main__":
    main()
