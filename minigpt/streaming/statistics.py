"""Statistics of a streamed parent: activations and weight norms, collected in one sweep over its layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from minigpt.methods.norms import layer_norms, stacked
from minigpt.methods.scores import WeightNorms
from minigpt.progress import SILENT, Reporter
from minigpt.pruning.streams import call_layer, layer_arguments
from minigpt.pruning.waiting import Waiting
from minigpt.streaming.parent import StreamedParent
from minigpt.transformer.arch import shape_of
from minigpt.transformer.batches import Batch
from minigpt.transformer.fused import separate_projections
from minigpt.transformer.recording import Sums, recording
from minigpt.transformer.stats import ActivationStats, means_of


@dataclass(slots=True, kw_only=True)
class _Passage:
    """A batch on its way through the layers.

    Attributes:
        batch: the batch, on the device of the parent.
        states: what leaves the last layer that read it.
        arguments: the keyword arguments of every layer.
        ends: the states at the ends of pieces of documents, in front of each layer and behind the last one.
    """

    batch: Batch
    states: Waiting
    arguments: list[dict[str, Any]]
    ends: list[Tensor] = field(default_factory=list)


def collect(
    parent: StreamedParent, batches: Iterable[Batch], *, reporter: Reporter = SILENT
) -> tuple[ActivationStats, WeightNorms]:
    """Return the statistics of a parent's units on calibration text, and the norms of their weights.

    They equal those of :func:`minigpt.transformer.stats.collect` to the bit.

    Args:
        parent: the streamed parent.
        batches: packed windows of the calibration text.
        reporter: told about progress.

    Raises:
        CorpusError: the batches hold no text.
    """
    model, sums, norms = parent.model, Sums(len(parent.layers)), []
    with torch.inference_mode():
        passages = [_enter(parent, batch) for batch in batches if batch.tokens]
        for index, layer in enumerate(parent.sweep(title="Activation statistics", reporter=reporter)):
            norms.append(layer_norms(model, layer))
            with separate_projections(model, (layer,)), recording(model, {index: layer}, sums):
                for passage in passages:
                    sums.look_at(passage.batch.segment_ids)
                    sums.states = passage.ends
                    states = passage.states.to(parent.device)
                    passage.states = parent.home.keep(call_layer(layer, states, passage.arguments[index]))
                    passage.ends = [state.to("cpu") for state in sums.states]
                    sums.keep(sums.values)
        for passage in passages:
            sums.start(passage.batch.segment_ids)
            sums.states = [state.to(parent.device) for state in passage.ends]
            sums.add_angles(sums.angles())
    return means_of(sums, shape_of(model)), stacked(norms)


def norms_of(parent: StreamedParent, *, reporter: Reporter = SILENT) -> WeightNorms:
    """Return the norms of the weights of every unit of a parent."""
    sweep = parent.sweep(title="Norms of the weights", reporter=reporter)
    return stacked([layer_norms(parent.model, layer) for layer in sweep])


def _enter(parent: StreamedParent, batch: Batch) -> _Passage:
    """Embed a batch."""
    batch = batch.to(parent.device)
    states, arguments = layer_arguments(parent.model, parent.layers, batch)
    return _Passage(batch=batch, states=parent.home.keep(states), arguments=arguments)
