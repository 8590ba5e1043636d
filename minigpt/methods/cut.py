"""Carry out a plan as its method does: slicing, slicing with repair, or the method's own transformation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigpt.errors import PlanError
from minigpt.lazy import resolve
from minigpt.methods.material import Material
from minigpt.methods.table import Method
from minigpt.progress import SILENT, Reporter
from minigpt.pruning import vocab
from minigpt.pruning.apply import apply_plan
from minigpt.pruning.repair import RepairReport, prune_with_repair
from minigpt.pruning.settings import RepairSettings
from minigpt.transformer.arch import has_state
from minigpt.transformer.batches import Batch
from minigpt.types import PrunePlan


def repair_of(method: Method, settings: RepairSettings) -> RepairSettings | None:
    """Return the settings of the repair that runs with this method's cut, or None where none runs.

    A method with its own transformation is never repaired.
    """
    wanted = method.repair if settings.when == "auto" else settings.when == "always"
    return settings if wanted and method.transform is None and settings.tokens > 0 else None


def cut_units(
    model: Any,
    plan: PrunePlan,
    method: Method,
    *,
    repair: RepairSettings | None = None,
    batches: Sequence[Batch] = (),
    material: Material | None = None,
    reporter: Reporter = SILENT,
) -> tuple[Any, RepairReport | None]:
    """Cut layers, neurons and KV groups of a model in place; the vocabulary stays.

    Args:
        model: the dense model, in float32.
        plan: the units to keep.
        method: decides how to cut.
        repair: of :func:`repair_of`; a plan that merges layers, and a model with a state, is never repaired.
        batches: calibration text that the repair fits on.
        material: the input of a method with its own transformation; its `model` must be the model to cut.
        reporter: told about progress.

    Returns:
        The model, and the errors before and after the repair (None: there was no repair).

    Raises:
        PlanError: the plan does not fit the model.
    """
    if method.transform is not None:
        return resolve(method.transform)(material, plan), None
    if repair is None or plan.merges or has_state(model):
        return apply_plan(model, plan), None
    return prune_with_repair(
        model,
        plan,
        batches,
        ridge=repair.ridge,
        sequential=repair.sequential,
        target=repair.target,
        reporter=reporter,
    )


def trim_vocabulary(model: Any, tokenizer: Any, plan: PrunePlan) -> tuple[Any, Any]:
    """Cut embeddings, head and tokenizer to the tokens that the plan keeps; a plan without tokens changes nothing."""
    if plan.tokens is None:
        return model, tokenizer
    trimmed = vocab.trim_tokenizer(tokenizer, plan.tokens)
    return vocab.trim_model(model, trimmed), trimmed.tokenizer


def check_size(model: Any, plan: PrunePlan) -> None:
    """Compare the parameters of a cut model with the plan's arithmetic; tied weights count once.

    Raises:
        PlanError: they differ.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters != plan.parameters_after:
        raise PlanError(f"The pruned model has {parameters:,} parameters, the plan says {plan.parameters_after:,}.")
