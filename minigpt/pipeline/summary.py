"""Summary of a plan, for `--plan-only`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minigpt.results import Coverage
from minigpt.transformer.arch import arch_of, shape_of
from minigpt.types import AXES, PrunePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """Summary of the units that a plan keeps and removes.

    Attributes:
        domain: name of the domain.
        base_model: the parent's reference.
        method: name of the method.
        parameters_before: parameters of the parent.
        parameters_after: parameters of the specialist.
        layers: layers that are kept.
        intermediate_size: neurons that are kept in each layer.
        kv_groups: KV groups that are kept in each layer.
        tokens: tokens that are kept; None where the vocabulary stays.
        removed_layers: the parent's indices of removed layers.
        removed_parameters: parameters that each kind of pruning removes.
        predicted_cost: expected cost of each axis, log2 of the ratio of bits per byte.
        experts: experts that are kept in each layer; None where none is removed.
        coverage: coverage of the measured texts by the training text; passages that are still to be sampled are left
            out.
        axes: axes that models of the family have; widths of others stand for nothing.
        seconds_to_build: time that the rest of the build takes, at the speeds that planning measured; None where these
            say nothing about a stage.
        disk_needed: bytes that the rest of the build writes in its folder, about.
        disk_free: bytes that are free there.
    """

    domain: str
    base_model: str
    method: str
    parameters_before: int
    parameters_after: int
    layers: int
    intermediate_size: int
    kv_groups: int
    tokens: int | None
    removed_layers: tuple[int, ...]
    removed_parameters: dict[str, int]
    predicted_cost: dict[str, float]
    experts: int | None = None
    coverage: tuple[Coverage, ...] = ()
    axes: tuple[str, ...] = AXES
    seconds_to_build: float | None = None
    disk_needed: int | None = None
    disk_free: int | None = None


def summarize_plan(domain: str, parent: Path, plan: PrunePlan, coverage: tuple[Coverage, ...] = ()) -> PlanSummary:
    """Summarize a plan for the model in the folder `parent`, with the coverage of the measured texts."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(parent)
    layers = shape_of(config).layers
    return PlanSummary(
        domain=domain,
        base_model=plan.base_model,
        method=plan.method,
        parameters_before=plan.parameters_before,
        parameters_after=plan.parameters_after,
        layers=len(plan.layers),
        intermediate_size=len(plan.ffn[0]),
        kv_groups=len(plan.kv_groups[0]),
        tokens=None if plan.tokens is None else len(plan.tokens),
        removed_layers=tuple(sorted(set(range(layers)) - set(plan.layers))),
        removed_parameters=dict(plan.removed_parameters),
        predicted_cost=dict(plan.predicted_cost),
        experts=len(plan.experts[0]) if plan.experts else None,
        coverage=coverage,
        axes=tuple(sorted(arch_of(config).axes)),
    )
