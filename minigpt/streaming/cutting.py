"""Cut of a streamed parent: each layer is sliced or repaired while it is in memory, as it would be in a whole model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from minigpt.pruning.experts import slice_experts
from minigpt.pruning.fitting import Fit, RepairReport, groups_in_config
from minigpt.pruning.settings import RepairSettings
from minigpt.pruning.slicing import (
    keeps_everything,
    plan_shape,
    refuse_merges,
    renumber,
    slice_attention,
    slice_ffn,
)
from minigpt.streaming.parent import StreamedParent
from minigpt.transformer.arch import arch_of, shape_of
from minigpt.transformer.batches import Batch
from minigpt.transformer.fused import separate_projections
from minigpt.types import PrunePlan


class LayerCut:
    """The cut of one plan, layer by layer.

    Args:
        parent: the streamed parent, with its whole embedding.
        plan: the units to keep.
        repair: settings of the repair (None: layers are only sliced).
        batches: calibration text that the repair fits on.

    Attributes:
        shape: the widths that the plan leaves; the vocabulary is the parent's.
        whole: whether the plan keeps everything.
        changes_layers: whether kept layers change, because the plan is narrower or because they are repaired.

    Raises:
        PlanError: the plan does not fit the parent, or merges layers.
        CorpusError: there is a repair, and no text.
    """

    def __init__(
        self, parent: StreamedParent, plan: PrunePlan, repair: RepairSettings | None, batches: Sequence[Batch]
    ) -> None:
        self.model, self.plan = parent.model, plan
        self.shape = plan_shape(self.model, plan)
        refuse_merges(plan, "streamed")
        self.whole = keeps_everything(self.model, plan)
        narrower = replace(self.shape, layers=len(parent.layers)) != shape_of(self.model)
        self.changes_layers = not self.whole and (repair is not None or narrower)
        self.fit: Fit | None = None
        if repair is not None:
            self.fit = Fit(
                self.model,
                plan,
                ridge=repair.ridge,
                sequential=repair.sequential,
                target=repair.target,
                home=parent.home,
            )
            if not self.whole:
                with torch.no_grad():
                    self.fit.load(batches)

    @property
    def last(self) -> int:
        """The last layer of the parent that is needed."""
        return self.plan.layers[-1]

    def keeps(self, index: int) -> bool:
        """Return whether the plan keeps a layer."""
        return index in self.plan.layers

    @torch.no_grad()
    def cut(self, index: int, layer: nn.Module) -> None:
        """Cut a layer in place, and repair it; of one that is not kept, a repair reads what it did."""
        with separate_projections(self.model, (layer,)):
            if self.fit is not None and not self.whole:
                outline, self.fit.layers[index] = self.fit.layers[index], layer
                try:
                    self.fit.layer(index)
                finally:
                    # A probe cuts copies, which would stay in memory with the fit.
                    self.fit.layers[index] = outline
            elif self.keeps(index) and not self.whole:
                place = self.plan.layers.index(index)
                slice_ffn(self.model, layer, self.plan.ffn[place])
                slice_attention(self.model, layer, self.plan.kv_groups[place])
                if self.plan.experts:
                    slice_experts(self.model, layer, self.plan.experts[place])

    @contextmanager
    def in_place(self, index: int, layer: nn.Module) -> Iterator[None]:
        """Let a kept layer compute inside the block as one of the pruned model."""
        attention: Any = layer.get_submodule(arch_of(self.model).attention_module)
        renumber(layer, self.plan.layers.index(index))
        with groups_in_config(attention, self.model.config, self.shape.kv_groups):
            yield
        renumber(layer, index)

    def report(self) -> RepairReport | None:
        """Return the record of the repair; None if there was none."""
        return self.fit.report(self.shape.intermediate_size) if self.fit is not None else None
