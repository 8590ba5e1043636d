"""Parent, text of a domain and items of the unpruned models, kept in memory for all points of a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model

from minigpt.evaluation import ItemScores, Suite
from minigpt.files import atomic_path, fingerprint
from minigpt.healing import train
from minigpt.machine import measuring_dtype
from minigpt.pipeline import BuildOptions
from minigpt.pipeline.build import context_for
from minigpt.pipeline.context import Context
from minigpt.pipeline.measure import scored
from minigpt.pipeline.workspace import Workspace
from minigpt.progress import SILENT

BASICS = {
    "control": "false",
    "corpus.relevance": "false",
    "evaluation.sample_tokens": "0",
    "text.sampled": "0",
    "heal.tokens_per_step": "8192",
    "heal.growth": "1",
    "heal.evaluate_every": "250",
}
"""Settings that every published point had, whatever the preset says now; each point adds its steps and its plan."""


@dataclass(frozen=True, kw_only=True)
class Held(Context):
    """Build context that tokenizes each text only once with the parent's tokenizer, `cache["tokenizer"]`."""

    cache: dict[Any, Any] = field(default_factory=dict)

    def calibration(self, tokenizer: Any, tokens: int) -> list[Any]:
        """Return packed calibration text of `tokens` tokens, tokenized on the first call."""
        if tokens not in self.cache:
            self.cache[tokens] = super().calibration(tokenizer, tokens)
        found: list[Any] = self.cache[tokens]
        return found

    def token_counts(self, tokenizer: Any) -> Counter[int]:
        """Return how often the domain's text uses each token, counted on the first call."""
        if "counts" not in self.cache:
            self.cache["counts"] = super().token_counts(tokenizer)
        found: Counter[int] = self.cache["counts"]
        return found

    def training_text(self, tokenizer: Any, window: int) -> tuple[Any, Any]:
        """Return training and dev text; a trimmed tokenizer tokenizes both again, the parent's only once."""
        if tokenizer is not self.cache["tokenizer"]:
            return super().training_text(tokenizer, window)
        if ("training", window) not in self.cache:
            self.cache["training", window] = super().training_text(tokenizer, window)
        found: tuple[Any, Any] = self.cache["training", window]
        return found


class Domain:
    """Text of a domain, the model that is pruned and teaches, and the items of the unpruned models.

    `key` is known at once. `parent`, `tuned` and `teacher` are known after :meth:`measure`, which runs the models.
    """

    parent: ItemScores
    tuned: ItemScores | None = None
    teacher: Any

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
        made = context_for(name, options, Workspace(root=work / Path(name).stem), SILENT)
        self.name = made.domain.name
        wanted = {f"{self.name}/{each}" for each in question_sets}
        asked = {task: found for task, found in made.suite.questions.items() if task in wanted}
        suite = Suite(texts=made.suite.texts, questions=asked)
        self.context = Held(**{**{each.name: getattr(made, each.name) for each in fields(made)}, "suite": suite})
        self.context.cache["tokenizer"] = tokenizer
        self.tokenizer, self.source, self.source_key = tokenizer, parent, made.parent.fingerprint
        self.tune_steps = tune_steps
        text = (self.context.text_key,) if tune_steps else ()
        self.key = fingerprint(self.source_key, suite, self.context.corpus.fingerprint, tune_steps, device, *text)

    def measure(self) -> None:
        """Measure the parent and, with `tune_steps`, tune it and measure the tuned parent."""
        self.parent = measured(self.context, deepcopy(self.source), self.tokenizer)
        if self.tune_steps:
            self._tune(self.tune_steps)
        self.teacher = cast(deepcopy(self.source), measuring_dtype(self.context.device))

    def _tune(self, steps: int) -> None:
        """Replace the model that is pruned by the tuned parent.

        The weights are kept in a file, so that every run has the same: no two trainings on a GPU are alike.
        """
        recipe = replace(self.context.settings.tune, steps=steps)
        self.source_key = fingerprint(self.source_key, self.key, recipe)
        self.source = deepcopy(self.source)
        kept = self.context.workspace.root / f"tuned-{self.source_key}.safetensors"
        if kept.exists():
            cast(self.source, torch.bfloat16)
            load_model(self.source, kept)
        else:
            text, dev = self.context.training_text(self.tokenizer, recipe.window)
            trained = deepcopy(self.source)
            train(trained, text, dev, recipe)
            # Training may leave fused kernels in a model, so its weights move out.
            self.source.load_state_dict(trained.state_dict())
            cast(self.source, torch.bfloat16)
            with atomic_path(kept) as temporary:
                save_model(self.source, str(temporary))
        cast(self.source, torch.float32)
        self.tuned = measured(self.context, deepcopy(self.source), self.tokenizer)


def cast(model: Any, dtype: torch.dtype) -> Any:
    """Cast the weights and not the buffers: rotary frequencies stay in float32, as when a saved model is loaded."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def measured(context: Context, model: Any, tokenizer: Any) -> ItemScores:
    """Measure a model as it would be saved (bfloat16), and leave it in the device's measuring precision."""
    cast(cast(model, torch.bfloat16), measuring_dtype(context.device))
    return scored(context, model, tokenizer)


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
