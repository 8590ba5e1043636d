"""Prune a parent to several shapes and heal each with several recipes, side by side in one run.

The parent is tuned once on the domain. A variant is cut from the parent or from the tuned parent, taught by either, and
compared with both. Dev text decides when to stop and which variant is best; held-out text and test questions are only
reported. `recipes.jsonl` is the list that compares recipes on one shape at equal tokens.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from reading import WINDOW, Reader, ratios, training_text
from safetensors.torch import load_model, save_model
from variants import Variant, variants_in

from minigpt import assets, locks
from minigpt.corpus.definition_questions import definition_documents
from minigpt.corpus.selection import training_documents
from minigpt.evaluation.mcq import TEMPLATE
from minigpt.files import atomic_path, fingerprint, read_jsonl, write_jsonl
from minigpt.healing import Recipe, Teacher, train
from minigpt.healing.tokenized import token_text
from minigpt.machine import device_name, measuring_dtype, release
from minigpt.methods import method_named
from minigpt.methods.material import gather
from minigpt.methods.ranking import make_plan, rank
from minigpt.methods.scores import Scores
from minigpt.pipeline.overrides import apply_overrides
from minigpt.pipeline.read import clear_of_tests
from minigpt.pipeline.sampling import write_passages
from minigpt.planning import LEFT_AFTER, Limits, Sensitivity, allocate
from minigpt.pruning import vocab
from minigpt.pruning.repair import prune_with_repair
from minigpt.results import Training
from minigpt.transformer.arch import shape_of, unit_costs
from minigpt.transformer.calibration import token_counts
from minigpt.types import Document

# Seconds that a process waits for another one's passages.
WRITING = 3600
FLAT = Sensitivity(curves={axis: ((1.0, 1.0),) for axis in LEFT_AFTER["short"]}, source="none: shapes are given")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A pruned model, its tokenizer, and the parent's id of each of its tokens (None: it has all tokens)."""

    model: Any
    tokenizer: Any
    ids: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Settings of tuning the parent: fields of the recipe, and the training text, which is that of the first variant.

    `kept` is the file of the tuned weights. It is read if it exists and written otherwise. No two trainings on a GPU
    are alike, so runs that are compared must share it.
    """

    recipe: dict[str, str]
    general: float
    definitions: int
    kept: Path


class Bench(Reader):
    """The parent, the tuned parent and the texts, loaded once.

    Args:
        domain: name or file of the domain.
        base: reference of the parent.
        device: the device that models are loaded on.
        tuning: settings of tuning the parent.
        tokens: tokens of calibration text.
        limit: bytes of each text that are read (None: all), as in :class:`Reader`.
    """

    def __init__(self, domain: str, base: str, device: str, tuning: Tuning, tokens: int, limit: int | None) -> None:
        super().__init__(domain, base, device, limit)
        self.models = {"parent": self.model(), "tuned": self.model()}
        texts = self.texts(self.tokenizer)
        self.kept = tuning.kept
        self._tune(texts["dev"], tuning)
        self.before = {name: self.read(model, texts) for name, model in self.models.items()}
        self.tokens = tokens
        self.batches = self.calibration(tokens)
        self.counts = token_counts(self.tokenizer, [*self.corpora.domain.calibration, *self.corpora.domain.train])
        self.scores: dict[str, Scores] = {}
        self.written: dict[int, list[Document]] = {}

    def sampled(self, count: int) -> list[Document]:
        """Sample passages from the tuned parent, as in a build, or read those that lie beside its weights.

        Another count samples again. Runs that are compared share the passages, because a GPU samples none twice.
        """
        if count and count not in self.written:
            path = self.kept.with_suffix(f".{count}.jsonl")
            with locks.hold(path.with_suffix(".lock"), str(path), timeout=WRITING):
                self._write_passages(path, count)
            self.written[count] = clear_of_tests([Document(**row) for row in read_jsonl(path)], self.corpora)
        return self.written.get(count, [])

    def _write_passages(self, path: Path, count: int) -> None:
        """Sample passages into a file, unless another process has."""
        if path.exists():
            return
        writer: Any = deepcopy(self.models["tuned"])
        windows = token_text(self.tokenizer, self.corpora.domain.train, WINDOW).windows
        passages = write_passages(writer.to(measuring_dtype(self.device)), self.tokenizer, windows, count, seed=0)
        write_jsonl(path, (asdict(document) for document in passages))

    def documents(self, general: float, definitions: int) -> list[Document]:
        """Training text as in a build: the domain's, general text, and the definitions in both asked."""
        found = training_documents(self.corpora.domain, self.corpora.general, general)
        made = definition_documents(found, definitions, 0, template=TEMPLATE)
        return [*found, *clear_of_tests(made, self.corpora)]

    def _tune(self, dev: Any, chosen: Tuning) -> None:
        tuned: Any = self.models["tuned"]
        kept = chosen.kept
        if not kept.exists():
            recipe = apply_overrides(
                Recipe(steps=1000, learning_rate=2e-4, evaluate_every=25, patience=75), chosen.recipe
            )
            trained, documents = self.model(), self.documents(chosen.general, chosen.definitions)
            train(trained, training_text(self.tokenizer, trained, documents, recipe.window), dev, recipe)
            tuned.load_state_dict(trained.state_dict())  # training may leave fused kernels in a model
            kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(kept) as temporary:
                save_model(tuned, str(temporary))
        load_model(tuned, kept)

    @cached_property
    def controls(self) -> dict[str, Any]:
        """Bits per byte and accuracies of the parent and of the tuned parent."""
        asked = {name: self.ask(model, self.tokenizer) for name, model in self.models.items()}
        return {name: {"bits": self.before[name], "accuracy": asked[name]} for name in self.models}

    def scored(self, variant: Variant, left: Cut | None) -> tuple[list[Any], Scores]:
        """Score the model that is cut, and return its calibration text too; scores of the two parents are kept."""
        if left is not None:
            batches = self.calibration(self.tokens, left.tokenizer)
            return batches, ranked(left.model, batches)
        if variant.source not in self.scores:
            self.scores[variant.source] = ranked(self.models[variant.source], self.batches)
        return self.batches, self.scores[variant.source]

    def cut(self, variant: Variant, left: Cut | None = None) -> Cut:
        """Cut the variant from its source, or from the model that an earlier cut `left`, which keeps its vocabulary."""
        source: Any = self.models[variant.source] if left is None else left.model
        whole, full, costs = shape_of(self.models["parent"]), shape_of(source), unit_costs(source)
        limits = Limits(
            layers=(variant.layers,),
            kv_groups=(variant.kv_groups or full.kv_groups,),
            neurons=(32, full.intermediate_size),
            vocab=(variant.vocab_size, variant.vocab_size),
        )
        target = round(variant.kept * unit_costs(self.models["parent"]).total(whole))
        shape = allocate(full, costs, target, FLAT, limits)
        batches, scores = self.scored(variant, left)
        model = deepcopy(source)
        prune_with_repair(model, make_plan(scores, shape), batches, **variant.repair)
        return self.trimmed(model, shape.vocab_size) if left is None else replace(left, model=model)

    def trimmed(self, model: Any, size: int) -> Cut:
        """Trim the vocabulary of a model to the `size` tokens that the domain uses most."""
        if size == model.config.vocab_size:
            return Cut(model=model, tokenizer=self.tokenizer)
        trimmed = vocab.trim_tokenizer(self.tokenizer, vocab.keep_tokens(self.tokenizer, self.counts, size))
        ids = torch.tensor(trimmed.old_ids, device=self.device)
        return Cut(model=vocab.trim_model(model, trimmed), tokenizer=trimmed.tokenizer, ids=ids)

    def heal(self, variant: Variant, cut: Cut, seed: int) -> Training:
        """Heal a pruned model; another seed reads the text in another order."""
        documents = [*self.documents(variant.general, variant.definitions), *self.sampled(variant.sampled)]
        recipe, teacher = variant.recipe(), None
        if recipe.distill:
            told: Any = deepcopy(self.models[variant.teacher])
            teacher = Teacher(model=told.to(torch.bfloat16).requires_grad_(False), parent_ids=cut.ids)
        text = training_text(cut.tokenizer, cut.model, documents, recipe.window)
        dev = self.texts(cut.tokenizer)["dev"]
        return train(cut.model, text, dev, recipe, teacher=teacher, seed=seed)

    def run(self, variant: Variant) -> dict[str, Any]:
        """Prune, heal and measure one variant."""
        left: Any = None
        trainings: list[Training] = []
        for each in variant.cuts():
            left = self.cut(each, left)
            texts = self.texts(left.tokenizer)
            pruned = self.read(left.model, texts)
            trainings.append(self.heal(each, left, seed=len(trainings)))
        shape, healed = shape_of(left.model), self.read(left.model, texts)
        tokens, seconds = (sum(getattr(each, name) for each in trainings) for name in ("tokens", "seconds"))
        return {
            "tag": variant.tag,
            "variant": asdict(variant),
            "recipe": variant.recipe().describe(),
            "shape": [shape.layers, shape.intermediate_size, shape.kv_groups, shape.vocab_size],
            "pruned_vs_tuned": ratios(pruned, self.before["tuned"]),
            "healed_vs_tuned": ratios(healed, self.before["tuned"]),
            "healed_vs_parent": ratios(healed, self.before["parent"]),
            "accuracy": self.ask(left.model, left.tokenizer),
            "best_step": trainings[-1].best_step,
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
        }


def ranked(model: Any, batches: list[Any], method: str = "contextual") -> Scores:
    """Scores of a method, the default one unless another is named."""
    scores = rank(method_named(method), gather(model, batches))
    assert scores is not None
    return scores


def told(variant: Variant) -> dict[str, Any]:
    """Return the fields that a line's key is computed from.

    `via` was added later, so lines without it keep their keys.
    """
    return {name: value for name, value in asdict(variant).items() if name != "via" or value}


def missing(variants: list[Variant], results: Path, common: dict[str, Any]) -> dict[str, Variant]:
    """Find the variants that have no line with these common fields, by the key that their line gets."""
    done = {row["key"] for row in read_jsonl(results)} if results.exists() else set()
    keys = {fingerprint(common, told(variant)): variant for variant in variants}
    return {key: variant for key, variant in keys.items() if key not in done}


def run_all(wanted: dict[str, Variant], bench: Callable[[], Bench], results: Path, common: dict[str, Any]) -> None:
    """Measure each variant and append its line at once; where nothing is missing, nothing is loaded."""
    if not wanted:
        print("All variants are there.")
        return
    made = bench()
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a", encoding="utf-8") as stream:
        for key, variant in wanted.items():
            row = {"key": key, **common, "controls": made.controls, **made.run(variant)}
            release()
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            print(f"{variant.tag}: {row['healed_vs_tuned']} {row['seconds']:.0f} s", flush=True)


def main() -> None:
    """Run every variant that has no line in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", required=True)
    parser.add_argument("--base", default=assets.DEFAULT_BASE)
    parser.add_argument("--variants", type=Path, default=Path(__file__).with_name("recipes.jsonl"))
    parser.add_argument("--tags", help="only these of the file, comma-separated [all]")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--tune", type=json.loads, default={}, help='fields of the tuning recipe: {"steps": "100"}')
    parser.add_argument("--tuned", type=Path, help="weights of the tuned parent, shared by runs [beside the results]")
    parser.add_argument("--tokens", type=int, default=65536, help="of calibration text")
    parser.add_argument("--limit", type=int, help="bytes of each text that is read, for a trial [all]")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    variants = variants_in(chosen.variants)
    first = variants[0]
    common = {"domain": Path(chosen.domain).stem, "base": chosen.base, "device": device_name(chosen.device)}
    common |= {"tune": [chosen.tune, first.general, first.definitions], "limit": chosen.limit}
    kept = chosen.tuned or chosen.results.with_suffix(f".{fingerprint(common)}.safetensors")
    tuning = Tuning(recipe=chosen.tune, general=first.general, definitions=first.definitions, kept=kept)
    if chosen.tags is not None:
        variants = [variant for variant in variants if variant.tag in chosen.tags.split(",")]

    def bench() -> Bench:
        return Bench(chosen.domain, chosen.base, chosen.device, tuning, chosen.tokens, chosen.limit)

    run_all(missing(variants, chosen.results, common), bench, chosen.results, common)


if __name__ == "__main__":
    main()
