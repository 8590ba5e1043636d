"""Parent, tuned parent and texts of one domain for the benchmark of delta tickets, loaded once for all variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from reading import WINDOW, Reader, training_text
from safetensors.torch import load_file, save_file

from minigpt import assets
from minigpt.corpus.definition_questions import definition_documents
from minigpt.corpus.selection import training_documents
from minigpt.evaluation import ItemScores, Suite, evaluate, load_scores, save_scores, suite_for, summarize
from minigpt.evaluation.mcq import TEMPLATE
from minigpt.files import atomic_path, fingerprint
from minigpt.healing import Recipe, Teacher, TokenText, TuneSettings, search
from minigpt.healing.tokenized import token_text
from minigpt.pipeline.read import clear_of_tests
from minigpt.tickets.delta import digests, in_dtype, parameters_of
from minigpt.tickets.delta_places import RECORD, WEIGHTS
from minigpt.tickets.delta_settings import Values
from minigpt.tickets.delta_store import make_ticket, put_in, read, write

QUESTIONS = 200
HEADLINE = "bits_per_byte"
STORED = torch.bfloat16


class DeltaBench(Reader):
    """One domain: texts, the parent in bf16, the tuned parent, and a folder of tickets and scores.

    Args:
        domain: file of the domain.
        base: reference of the parent.
        device: torch device.
        work: folder of this domain's tuned parent, tickets and scores.
        tune: settings of the search for the tuned parent.
        limit: bytes of each text that are read (None: all).
    """

    def __init__(
        self, domain: Path, base: str, device: str, work: Path, tune: TuneSettings, limit: int | None = None
    ) -> None:
        super().__init__(str(domain), base, device, limit)
        self.base, self.work, self.name = base, work, self.corpora.domain.domain
        work.mkdir(parents=True, exist_ok=True)
        self.parent = in_dtype(parameters_of(assets.load_model(self.folder, dtype=STORED)), STORED)
        self.text, self.dev = self._tokenized(tune.recipe())
        self.tuned, self.tuning = self._tuned(tune)
        self.suite = self._suite()

    def fresh(self, weights: Mapping[str, Any] | None = None) -> Any:
        """Load the parent in fp32, with the values that bf16 has room for, or with other weights."""
        model = self.model()
        with torch.no_grad():
            for name, tensor in parameters_of(model).items():
                tensor.copy_((weights or self.parent)[name])
        return model

    def teacher(self) -> Teacher:
        """Return the tuned parent as a teacher."""
        return Teacher(model=self.fresh(self.tuned).to(torch.bfloat16).requires_grad_(False), parent_ids=None)

    def _tokenized(self, recipe: Recipe) -> tuple[Any, Any]:
        real = training_documents(self.corpora.domain, self.general, 1.0)
        asked = clear_of_tests(definition_documents(real, 3, 0, template=TEMPLATE), self.corpora)
        documents = self.part(tuple([*real, *asked]))
        text = training_text(self.tokenizer, self.model(), documents, recipe.window)
        return text, token_text(self.tokenizer, self.part(self.corpora.domain.dev), recipe.window)

    @cached_property
    def domain_text(self) -> TokenText:
        """The domain's own training text, without general text and definitions."""
        return training_text(self.tokenizer, self.model(), self.part(self.corpora.domain.train), WINDOW)

    def _tuned(self, tune: TuneSettings) -> tuple[dict[str, Any], str]:
        """Tune the parent by the search of a build, once; the weights in bf16 and a line about the search are kept."""
        kept = self.work / "tuned.safetensors"
        note = kept.with_suffix(".txt")
        if not kept.exists():
            result = search(self.fresh, self.text, self.dev, tune)
            note.write_text(result.training_record().recipe, "utf-8")
            with atomic_path(kept) as temporary:
                save_file(in_dtype(parameters_of(result.model), STORED), temporary)
        return load_file(kept), note.read_text("utf-8")

    def _suite(self) -> Suite:
        most = None if self.limit is None else max(4, self.limit // 1000)
        suite = suite_for(
            self.corpora.domain, self.general, max_heldout_bytes=self.limit, max_questions=most or QUESTIONS
        )
        return replace(suite, recitations={})

    def measured(self, tag: str, weights: Mapping[str, Any]) -> ItemScores:
        """Score a model of these weights on everything in fp32, or return its scores of an earlier call."""
        path = self.work / f"{tag}.{fingerprint(digests(weights), self.limit)}.scores.json"
        if not path.exists():
            model = self.fresh(weights)
            save_scores(evaluate(model, self.tokenizer, self.suite, batch_tokens=16384, window=1024), path)
        return load_scores(path)

    def stored(self, tag: str, model: Any, values: Values = "exact") -> tuple[dict[str, Any], dict[str, Any]]:
        """Write a model's changes as a ticket, read it back, and return the weights that it gives and its sizes."""
        return self.ticket_of(tag, in_dtype(parameters_of(model), STORED), values)

    def ticket_of(self, tag: str, weights: Mapping[str, Any], values: Values = "exact") -> tuple[dict, dict]:
        """Write weights in bf16 as a ticket, read it back, and return the weights that it gives and its sizes."""
        result = {name: tensor.cpu() for name, tensor in weights.items()}
        ticket = make_ticket(self.parent, result, base=self.base, domains=(self.name,), values=values)
        write(ticket, self.work / tag)
        return self.weights_of(tag), self.sizes(tag)

    def weights_of(self, tag: str) -> dict[str, Any]:
        """Return the weights that a stored ticket gives, every hash compared."""
        model = assets.load_model(self.folder, dtype=STORED)
        put_in(model, read(self.work / tag))
        return parameters_of(model)

    def sizes(self, tag: str) -> dict[str, Any]:
        """Return the share of changed weights, and the bytes of a ticket's files against the parent's in bf16."""
        record = read(self.work / tag).record
        size = sum((self.work / tag / name).stat().st_size for name in (WEIGHTS, RECORD))
        return {"changed": record.fraction, "bytes": size, "bytes_vs_parent": size / (2 * record.parameters)}

    def against(self, tag: str, weights: Mapping[str, Any], others: Mapping[str, ItemScores]) -> dict[str, Any]:
        """Measure a model: value and interval of every task, and ratio and paired difference to each other model."""
        scores = self.measured(tag, weights)
        rows: dict[str, Any] = {}
        for other, items in others.items():
            reference = {(result.task, result.metric): result.value for result in summarize(items)}
            for result in summarize(scores, parent=items):
                if result.metric not in (HEADLINE, "accuracy") or result.paired_difference_vs_parent is None:
                    continue
                paired = result.paired_difference_vs_parent
                row = rows.setdefault(f"{result.task} {result.metric}", {"value": result.value, "n": result.n})
                row |= {"low": result.low, "high": result.high}
                row[other] = {
                    "ratio": result.value / reference[result.task, result.metric],
                    "difference": [paired.value, paired.low, paired.high],
                }
        return rows
