"""Least-squares repair of a model in memory, layer by layer; the fit itself is :class:`minigpt.pruning.fitting.Fit`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch

from minigpt.progress import SILENT, Reporter
from minigpt.pruning.fitting import Fit, RepairReport, Target
from minigpt.pruning.slicing import keep_layers, keeps_everything, plan_shape, refuse_merges, update_config
from minigpt.transformer.arch import refuse_state
from minigpt.transformer.batches import Batch, take_tokens
from minigpt.transformer.fused import separate_projections
from minigpt.types import PrunePlan

__all__ = ["RepairReport", "Target", "prune_with_repair"]

ModelT = TypeVar("ModelT")


def prune_with_repair(
    model: ModelT,
    plan: PrunePlan,
    batches: Iterable[Batch],
    *,
    ridge: float | None = None,
    max_tokens: int | None = None,
    sequential: bool = True,
    target: Target = "stream",
    reporter: Reporter = SILENT,
) -> tuple[ModelT, RepairReport]:
    """Apply a plan in place, layer by layer, refitting each output projection before the next layer is cut.

    The calibration text runs through parent and pruned network side by side, one layer at a time, so that memory holds
    only one layer's Gram matrices and two hidden states a token. A removed layer runs for the parent only; the next
    kept layer starts from the pruned stream and is fitted to the parent's stream behind that layer.

    Args:
        model: the dense model, best in float32; it is changed, and left half-cut if this raises.
        plan: the units to keep.
        batches: calibration text (never held-out text).
        ridge: lambda as a fraction of the Gram matrix's mean diagonal (None: by the size of the sample).
        max_tokens: use whole windows up to this many text tokens (None: all); give at least 4 per kept neuron.
        sequential: fit to the pruned network's own inputs, so that later layers also correct the errors of earlier
            ones; False fits every layer to the parent's inputs.
        target: "stream" fits the parent's residual stream behind the projection, which also corrects removed layers
            and earlier errors; "output" fits the projection's own output in the parent. Families with a norm behind
            the projection, and fits that are not sequential, always use "output".
        reporter: told about progress.

    Returns:
        The same model, and the errors before and after.

    Raises:
        PlanError: the plan does not fit the model, or merges layers.
        CorpusError: the batches hold no text.
    """
    shape = plan_shape(model, plan)
    refuse_merges(plan, "repaired")
    refuse_state(model, "The repair", advice="prune without it, and heal")
    fit = Fit(model, plan, ridge=ridge, sequential=sequential, target=target)
    if not keeps_everything(model, plan):
        with separate_projections(model), torch.no_grad():
            fit.load(take_tokens(batches, max_tokens))
            for index in reporter.track(
                range(plan.layers[-1] + 1), title="Pruning and repair", total=plan.layers[-1] + 1
            ):
                fit.layer(index)
        keep_layers(model, plan.layers)
        update_config(model, plan, shape)
    return model, fit.report(shape.intermediate_size)
