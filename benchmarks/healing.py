"""Prune a parent to several shapes and heal each with several recipes, side by side in one run.

The parent is tuned once on the domain; every variant is cut from it, taught by it and compared with it. Dev text
decides (when to stop, and which variant to take); held-out text and test questions are only reported.
"""

from __future__ import annotations

import argparse
import json
import time
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from reading import WINDOW, Reader, ratios

from minigpt import assets, stats, vocab
from minigpt.arch import shape_of, unit_costs
from minigpt.config import apply_overrides
from minigpt.heal import Recipe, Teacher, train
from minigpt.importance import score, weight_norms
from minigpt.pipeline.finish import device_name
from minigpt.pipeline.text import token_counts, token_text, training_documents
from minigpt.plan import LEFT_AFTER, Limits, Sensitivity, allocate
from minigpt.prune import make_plan
from minigpt.repair import prune_with_repair

FLAT = Sensitivity(curves={axis: ((1.0, 1.0),) for axis in LEFT_AFTER["short"]}, source="none: shapes are given")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One row of the table; `kept` is the fraction of parameters, `general` the share of general text mixed in."""

    tag: str
    vocab_size: int
    layers: int
    kept: float = 0.75
    general: float = 0.0
    repair: dict[str, Any] = field(default_factory=dict)
    heal: dict[str, str] = field(default_factory=dict)


class Bench(Reader):
    """The parent, its tuned form and the texts, loaded once."""

    def __init__(self, domain: str, base: str, device: str, tune: dict[str, str]) -> None:
        super().__init__(domain, base, device)
        self.parent, self.tuned = self.model(), self.model()
        texts = self.texts(self.tokenizer)
        recipe = apply_overrides(Recipe(steps=1000, learning_rate=2e-4, evaluate_every=25, patience=75), tune)
        train(self.tuned, token_text(self.tokenizer, self.corpus.train, WINDOW), texts["dev"], recipe)
        self.before = {"parent": self.read(self.parent, texts), "tuned": self.read(self.tuned, texts)}
        teacher: Any = deepcopy(self.tuned)
        self.teacher = teacher.to(torch.bfloat16)
        self.batches = self.calibration(65536)
        self.scores = score("contextual", stats.collect(self.tuned, self.batches), weight_norms(self.tuned))
        self.counts = token_counts(self.tokenizer, [*self.corpus.calibration, *self.corpus.train])

    def run(self, variant: Variant) -> dict[str, Any]:
        """Prune, heal and measure one variant."""
        full, costs = shape_of(self.parent), unit_costs(self.parent)
        limits = Limits(
            layers=(variant.layers,),
            kv_groups=(full.kv_groups,),
            neurons=(32, full.intermediate_size),
            vocab=(variant.vocab_size, variant.vocab_size),
        )
        shape = allocate(full, costs, round(variant.kept * costs.total(full)), FLAT, limits)
        model = deepcopy(self.tuned)
        prune_with_repair(model, make_plan(self.scores, shape), self.batches, **variant.repair)
        tokenizer, ids = self.tokenizer, None
        if shape.vocab_size < full.vocab_size:
            trimmed = vocab.trim_tokenizer(self.tokenizer, vocab.keep_tokens(tokenizer, self.counts, shape.vocab_size))
            model, tokenizer = vocab.trim_model(model, trimmed), trimmed.tokenizer
            ids = torch.tensor(trimmed.old_ids, device=self.device)
        texts = self.texts(tokenizer)
        pruned = self.read(model, texts)
        documents = training_documents(self.corpus, self.control, variant.general)
        recipe = apply_overrides(Recipe(distill=1.0, evaluate_every=100), variant.heal)
        started = time.perf_counter()
        training = train(
            model,
            token_text(tokenizer, documents, WINDOW),
            texts["dev"],
            recipe,
            teacher=Teacher(model=self.teacher, parent_ids=ids) if recipe.distill else None,
        )
        seconds = time.perf_counter() - started
        healed = self.read(model, texts)
        return {
            "tag": variant.tag,
            "shape": [shape.layers, shape.intermediate_size, shape.kv_groups, shape.vocab_size],
            "pruned_vs_tuned": ratios(pruned, self.before["tuned"]),
            "healed_vs_tuned": ratios(healed, self.before["tuned"]),
            "healed_vs_parent": ratios(healed, self.before["parent"]),
            "accuracy": self.ask(model, tokenizer),
            "best_step": training.best_step,
            "seconds": seconds,
            "tokens_per_second": training.tokens / seconds,
        }


def main() -> None:
    """Run every variant and append a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", required=True)
    parser.add_argument("--base", default=assets.DEFAULT_BASE)
    parser.add_argument("--variants", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--tune", type=json.loads, default={}, help='fields of the tuning recipe: {"steps": "100"}')
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    bench = Bench(chosen.domain, chosen.base, chosen.device, chosen.tune)
    questions = {
        "parent": bench.ask(bench.parent, bench.tokenizer),
        "tuned": bench.ask(bench.tuned, bench.tokenizer),
    }
    with chosen.results.open("a", encoding="utf-8") as stream:
        for line in chosen.variants.read_text("utf-8").splitlines():
            result = bench.run(Variant(**json.loads(line)))
            row = {"domain": chosen.domain, "device": device_name(chosen.device), "controls": questions, **result}
            stream.write(json.dumps(row) + "\n")
            stream.flush()


if __name__ == "__main__":
    main()
