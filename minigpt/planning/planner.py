"""The planner: choose the units to keep, from a method, its material and a budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from minigpt.methods.cut import cut_units
from minigpt.methods.material import Material
from minigpt.methods.ranking import choose
from minigpt.methods.scores import Scores
from minigpt.methods.table import Method
from minigpt.planning.allocate import removed_fractions
from minigpt.planning.attribution import removed_parameters
from minigpt.planning.budget import FREE, Budget
from minigpt.planning.probes import measure_sensitivity
from minigpt.planning.sensitivity import Curve, Sensitivity, shipped
from minigpt.planning.settings import PlanSettings
from minigpt.progress import SILENT, Reporter
from minigpt.pruning import vocab
from minigpt.pruning.settings import RepairSettings
from minigpt.transformer.arch import parameters_of, shape_of
from minigpt.transformer.batches import take_tokens
from minigpt.types import Document, Ints, PrunePlan

Curves = Mapping[str, Curve]


def plan_units(
    method: Method,
    material: Material,
    tokenizer: Any,
    budget: Budget,
    sensitivity: Sensitivity,
    scores: Scores | None,
    *,
    base_model: str = "",
    kinds: Collection[str] | None = None,
) -> PrunePlan:
    """Split the budget over the axes, then choose the units of each.

    Args:
        method: the row of the table.
        material: the model, which stays as it is, and its statistics.
        tokenizer: the model's tokenizer; its merges decide which tokens must stay together.
        budget: the size to reach and the shapes allowed.
        sensitivity: the expected cost of removing a share of each axis.
        scores: of :func:`minigpt.methods.ranking.rank`.
        base_model: the parent's name, for the plan's record.
        kinds: kinds of pruning that were allowed, to attribute removed parameters.

    Raises:
        PlanError: no allowed shape is near the size.
    """
    model, parent = material.model, shape_of(material.model)
    shape = budget.shape(parent, sensitivity)
    tokens: Ints | None = None
    if shape.vocab_size < parent.vocab_size:
        tokens = vocab.keep_tokens(tokenizer, material.counts, shape.vocab_size)
    plan = choose(method, material, shape, scores, base_model=base_model)
    costs = budget.costs
    return replace(
        plan,
        tokens=tokens,
        parameters_before=parameters_of(model),
        parameters_after=costs.total(shape),
        target_parameters=budget.target,
        removed_parameters=removed_parameters(plan, parent, shape, costs, material.statistics, material.norms, kinds),
        predicted_cost={axis: sensitivity.cost(axis, part) for axis, part in removed_fractions(parent, shape).items()},
        sensitivity=sensitivity.source,
    )


def decide_sensitivity(
    budget: Budget, config: Any, settings: PlanSettings, *, accelerated: bool, measure: Callable[[], Curves]
) -> Sensitivity:
    """Choose the costs that split the budget: none, shipped ones or measured ones.

    Args:
        budget: with fewer than two axes to decide about, no costs are needed.
        config: the parent's Hugging Face config.
        settings: decide whether to measure.
        accelerated: whether the model is on an accelerator, where measuring takes seconds.
        measure: measures the curves, or reads earlier measurements; it is called only where needed.
    """
    if budget.choices < 2:
        return FREE
    table = shipped_costs(config, settings, accelerated=accelerated)
    return table if table is not None else Sensitivity.after(settings.healing, measure())


def shipped_costs(config: Any, settings: PlanSettings, *, accelerated: bool) -> Sensitivity | None:
    """Return the costs that ship for a parent; None where they are measured.

    Args:
        config: the parent's Hugging Face config.
        settings: decide whether to measure.
        accelerated: whether the model is on an accelerator, where measuring takes seconds.
    """
    if settings.sensitivity == "measure" or (settings.sensitivity == "auto" and accelerated):
        return None
    return shipped(str(config.model_type), int(config.hidden_size), shape_of(config), settings.healing)


def measure_curves(
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
    reporter: Reporter = SILENT,
) -> Curves:
    """Measure the cost of every axis that may be cut, with copies that are cut and repaired as the method does it.

    Args:
        method: the row of the table.
        material: the model, which stays as it is, and its statistics.
        tokenizer: the model's tokenizer.
        scores: of :func:`minigpt.methods.ranking.rank`.
        documents: dev text that is read after every cut (never held-out text).
        axes: of :func:`minigpt.planning.budget.allowed_axes`.
        repair: of :func:`minigpt.methods.cut.repair_of`.
        probe_tokens: tokens of calibration text for the repair of a probe.
        window: longest piece of text.
        reporter: told about progress.
    """
    batches = list(take_tokens(material.batches, probe_tokens))

    def cut(copy: Any, shape: Any) -> Any:
        plan = choose(method, material, shape, scores, base_model="")
        material_of_copy = replace(material, model=copy)
        return cut_units(copy, plan, method, repair=repair, batches=batches, material=material_of_copy)[0]

    return measure_sensitivity(
        material.model,
        tokenizer,
        cut,
        documents,
        material.counts,
        axes=axes,
        window=window,
        reporter=reporter,
    )
