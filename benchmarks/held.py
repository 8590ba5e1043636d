"""Parent, text of a domain and items of the unpruned models, kept in memory for all points of a benchmark."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model

from minigpt.evaluation import ItemScores, Suite
from minigpt.files import atomic_path, fingerprint
from minigpt.healing import TokenText, train
from minigpt.machine import measuring_dtype
from minigpt.methods.material import Material
from minigpt.pipeline import BuildOptions
from minigpt.pipeline.groundwork import read
from minigpt.pipeline.measure import scores_of
from minigpt.pipeline.plan import material_for
from minigpt.pipeline.run import Run, load_parent, resolve_run
from minigpt.pipeline.text import calibration, planning_text, tokenized, training_text
from minigpt.progress import SILENT

BASICS = {
    "tuned_parent": "false",
    "corpus.relevance": "false",
    "evaluation.sample_tokens": "0",
    "text.sampled": "0",
    "heal.tokens_per_step": "8192",
    "heal.growth": "1",
    "heal.evaluate_every": "250",
}
"""Settings that every published point had, whatever the preset says now; each point adds its steps and its plan."""


class Domain:
    """A domain's text, the model that is pruned and taught from, and the items of parent and tuned parent.

    `key` is known at once. `parent`, `tuned` and `teacher` are known after :meth:`measure`, which runs the models.
    """

    parent: ItemScores
    tuned: ItemScores | None = None
    teacher: Any
    material: Material

    def __init__(
        self,
        name: str,
        parent: Any,
        tokenizer: Any,
        *,
        base: str,
        device: str,
        work: Path,
        overrides: Mapping[str, str],
        question_sets: Collection[str],
        tune_steps: int = 0,
    ) -> None:
        batch = {"evaluation.batch_tokens": "1024" if device == "cpu" else "16384"}
        options = BuildOptions(
            domains=(name,),
            base=base,
            preset="standard",
            device=device,
            overrides={**BASICS, **batch, **overrides},
        )
        self.run = resolve_run(name, options, SILENT, folder=work / Path(name).stem)
        self.name = self.run.domain.name
        corpora, suite = read(self.run)
        wanted = {f"{self.name}/{question_set}" for question_set in question_sets}
        questions = {task: items for task, items in suite.questions.items() if task in wanted}
        self.suite = replace(suite, questions=questions)
        self.base = load_parent(self.run)
        self.planning = planning_text(corpora, self.run.settings)
        self.text = training_text(corpora, self.run.settings, seed=options.seed)
        self.tokenized: dict[int, tuple[TokenText, TokenText]] = {}
        self.tokenizer, self.source, self.source_key = tokenizer, parent, self.base.fingerprint
        self.tune_steps = tune_steps
        text = (self.text.key,) if tune_steps else ()
        self.key = fingerprint(self.source_key, self.suite, corpora.domain.fingerprint, tune_steps, device, *text)

    def measure(self) -> None:
        """Measure the parent and, with `tune_steps`, tune it and measure that; take the statistics of the source."""
        self.parent = measured(self.run, self.suite, deepcopy(self.source), self.tokenizer)
        if self.tune_steps:
            self._tune(self.tune_steps)
        self.teacher = cast(deepcopy(self.source), measuring_dtype(self.run.device))
        self.material = material_for(self.run, self.planning, self.source, self.tokenizer, self.source_key)
        tokens = self.run.settings.repair.tokens
        self.repair_batches = calibration(self.planning, self.tokenizer, tokens) if tokens else []

    def training_text(self, tokenizer: Any, window: int) -> tuple[TokenText, TokenText]:
        """Training and dev text, tokenized; the parent's tokenizer reads them once, a trimmed one every time."""
        if tokenizer is not self.tokenizer:
            return tokenized(self.text, tokenizer, window)
        if window not in self.tokenized:
            self.tokenized[window] = tokenized(self.text, tokenizer, window)
        return self.tokenized[window]

    def _tune(self, steps: int) -> None:
        """Prune and teach with the tuned parent, the same weights in every run: no two trainings on a GPU are alike."""
        recipe = replace(self.run.settings.tune, steps=steps)
        self.source_key = fingerprint(self.source_key, self.key, recipe)
        self.source = deepcopy(self.source)
        kept = self.run.workspace.root / f"tuned-{self.source_key}.safetensors"
        if kept.exists():
            cast(self.source, torch.bfloat16)
            load_model(self.source, kept)
        else:
            text, dev = self.training_text(self.tokenizer, recipe.window)
            trained = deepcopy(self.source)
            train(trained, text, dev, recipe)
            # Training may leave fused kernels in a model, so its weights move out.
            self.source.load_state_dict(trained.state_dict())
            cast(self.source, torch.bfloat16)
            with atomic_path(kept) as temporary:
                save_model(self.source, str(temporary))
        cast(self.source, torch.float32)
        self.tuned = measured(self.run, self.suite, deepcopy(self.source), self.tokenizer)


def cast(model: Any, dtype: torch.dtype) -> Any:
    """Cast the weights and not the buffers: rotary frequencies stay in float32, as when a saved model is loaded."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def measured(run: Run, suite: Suite, model: Any, tokenizer: Any) -> ItemScores:
    """Items of a model as it would be saved (bfloat16), in the device's measuring precision; leaves it so."""
    cast(cast(model, torch.bfloat16), measuring_dtype(run.device))
    return scores_of(run, suite, model, tokenizer)


def compact(scores: ItemScores) -> dict[str, Any]:
    """Reduce items to what differs from the parent's: bits of each document and choices for each question."""
    return {
        "texts": {task: [round(bits, 2) for bits in items.bits] for task, items in scores.texts.items()},
        "questions": {task: [items.picks, items.picks_norm] for task, items in scores.questions.items()},
    }


def summary(scores: ItemScores, parent: ItemScores, domain: str) -> dict[str, float]:
    """Compute the few numbers that people read in the file; the tables come from the items."""
    found = {"bits_per_byte": round(scores.texts[domain].bits_per_byte, 4)}
    found["ratio"] = round(found["bits_per_byte"] / parent.texts[domain].bits_per_byte, 4)
    for task, items in scores.questions.items():
        found[task] = round(sum(items.correct) / len(items.correct), 4)
    return found
