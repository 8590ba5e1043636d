"""Probes of a streamed parent: many cuts are measured in one sweep, each on its own copy of the layer in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import nn

from minigpt.healing.tokenized import token_text
from minigpt.methods.material import Material
from minigpt.methods.ranking import choose
from minigpt.methods.scores import Scores
from minigpt.methods.table import Method
from minigpt.planning.memory import TOGETHER
from minigpt.planning.planner import Curves
from minigpt.planning.probes import Probe, curves_of, probes_of
from minigpt.progress import SILENT, Reporter
from minigpt.pruning import vocab
from minigpt.pruning.settings import RepairSettings
from minigpt.streaming.cutting import LayerCut
from minigpt.streaming.parent import StreamedParent
from minigpt.streaming.reading import Reading
from minigpt.transformer.batches import take_tokens
from minigpt.types import Document


@dataclass(slots=True, kw_only=True)
class _Trial:
    """One probe in a sweep: the dev text, and the cut that it is read behind (None: the layers stay)."""

    reading: Reading
    cut: LayerCut | None = None

    def step(self, index: int, layer: nn.Module) -> None:
        """Cut a copy of a layer, and read the dev text by it; the layer stays as it is."""
        if self.cut is None:
            self.reading.move(index, layer)
        elif index <= self.cut.last:
            self._step(self.cut, index, layer)

    def _step(self, cut: LayerCut, index: int, layer: nn.Module) -> None:
        """Do what :meth:`step` does, where there is a cut."""
        kept = cut.keeps(index)
        copy = deepcopy(layer) if kept and cut.changes_layers else layer
        cut.cut(index, copy)
        if kept:
            with cut.in_place(index, copy):
                self.reading.move(index, copy)


def measure_curves(
    parent: StreamedParent,
    method: Method,
    material: Material,
    tokenizer: Any,
    scores: Scores | None,
    documents: Sequence[Document],
    *,
    axes: Collection[str],
    repair: RepairSettings | None,
    probe_tokens: int,
    window: int,
    together: int = TOGETHER,
    reporter: Reporter = SILENT,
) -> Curves:
    """Measure the cost of every axis that may be cut; :func:`minigpt.planning.planner.measure_curves`, streamed.

    Args:
        parent: the streamed parent.
        method: the row of the table.
        material: its statistics.
        tokenizer: its tokenizer.
        scores: of :func:`minigpt.methods.ranking.rank`.
        documents: dev text that is read after every cut (never held-out text).
        axes: of :func:`minigpt.planning.budget.allowed_axes`.
        repair: of :func:`minigpt.methods.cut.repair_of`.
        probe_tokens: tokens of calibration text for the repair of a probe.
        window: longest piece of text.
        together: probes that share a sweep.
        reporter: told about progress.
    """
    batches = list(take_tokens(material.batches, probe_tokens))
    probes = probes_of(parent.model, axes)

    def reading(model: Any, tokenizer: Any) -> Reading:
        return Reading(model, token_text(tokenizer, documents, window), parent.device, home=parent.home)

    def trial(probe: Probe) -> _Trial:
        axis, _, shape = probe
        if axis == "vocab":
            trimmed = vocab.trim_tokenizer(tokenizer, vocab.keep_tokens(tokenizer, material.counts, shape.vocab_size))
            ends = vocab.trim_model(deepcopy(parent.model), trimmed)
            return _Trial(reading=reading(ends, trimmed.tokenizer))
        plan = choose(method, material, shape, scores, base_model="")
        return _Trial(reading=reading(parent.model, tokenizer), cut=LayerCut(parent, plan, repair, batches))

    whole = _Trial(reading=reading(parent.model, tokenizer))
    costs: list[float] = []
    pending: list[Probe | None] = [None, *probes]
    for start in range(0, len(pending), together):
        trials = [whole if probe is None else trial(probe) for probe in pending[start : start + together]]
        for index, layer in enumerate(parent.sweep(title="Measuring sensitivity", reporter=reporter)):
            for probe_trial in trials:
                probe_trial.step(index, layer)
        costs += [probe_trial.reading.bits_per_byte() for probe_trial in trials]
    return curves_of(probes, costs[0], costs[1:])
