"""Ranking and choice of units: from a method and its material to a plan of a given shape."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from minigpt.errors import PlanError
from minigpt.lazy import resolve
from minigpt.methods.depth.collapse import Collapse
from minigpt.methods.material import Material
from minigpt.methods.scores import Scores, checked
from minigpt.methods.table import Method
from minigpt.transformer.arch import fixed_layers, shape_of
from minigpt.types import Ints, PrunePlan, Shape


def rank(method: Method, material: Material) -> Scores | None:
    """Score every unit with a method; returns None where the method ranks no units.

    Raises:
        ConfigError: a score is not a finite number.
    """
    if method.rank is None:
        return None
    scores: Scores = resolve(method.rank)(material)
    return checked(
        replace(
            scores,
            method=method.name,
            ffn=scores.ffn.float(),
            kv_groups=scores.kv_groups.float(),
            layers=scores.layers.float(),
            experts=None if scores.experts is None else scores.experts.float(),
            fixed=fixed_layers(material.model),
        )
    )


def choose(method: Method, material: Material, shape: Shape, scores: Scores | None, *, base_model: str) -> PrunePlan:
    """Plan exactly `shape` (vocabulary aside) with the units and layers that the method keeps.

    Args:
        method: the row of the table.
        material: the model and its statistics.
        shape: widths and number of layers to keep.
        scores: of :func:`rank`.
        base_model: the parent's name, for the plan's record.

    Raises:
        PlanError: the shape is narrower than the parent on an axis on which the method ranks nothing.
    """
    parent = shape_of(material.model)
    layers: Ints = tuple(range(parent.layers))
    merges: tuple[Ints, ...] = ()
    if method.layers is not None and shape.layers < parent.layers:
        kept = resolve(method.layers)(material, shape.layers)
        layers, merges = (kept.layers, kept.merges) if isinstance(kept, Collapse) else (tuple(kept), ())
    elif scores is not None:
        layers = select(scores, shape)[0]
    if scores is not None:
        plan = make_plan(scores, shape, base_model=base_model, method=method.name, seed=material.seed, layers=layers)
        experts = _experts(method, scores, layers, shape.experts) if shape.experts < parent.experts else ()
        return replace(plan, experts=experts)
    if replace(shape, layers=parent.layers, vocab_size=parent.vocab_size) != parent:
        raise PlanError(
            f"{method.name} ranks neither neurons nor KV groups nor experts; leave their numbers as they are."
        )
    plan = keep_everything(parent, base_model=base_model, method=method.name, seed=material.seed)
    return replace(
        plan, layers=layers, ffn=plan.ffn[: len(layers)], kv_groups=plan.kv_groups[: len(layers)], merges=merges
    )


def _experts(method: Method, scores: Scores, layers: Ints, count: int) -> tuple[Ints, ...]:
    """Select the experts of each kept layer.

    Raises:
        PlanError: the method ranks no experts.
    """
    if scores.experts is None:
        raise PlanError(f"{method.name} ranks no experts; leave their number as it is, or choose reap or contextual.")
    return tuple(_highest(scores.experts[index], count) for index in layers)


def keep_everything(parent: Shape, *, base_model: str = "", method: str = "", seed: int = 0) -> PrunePlan:
    """Plan to keep every unit of a parent of this shape, without sizes."""
    return PrunePlan(
        base_model=base_model,
        method=method,
        seed=seed,
        layers=tuple(range(parent.layers)),
        ffn=(tuple(range(parent.intermediate_size)),) * parent.layers,
        kv_groups=(tuple(range(parent.kv_groups)),) * parent.layers,
    )


def select(
    scores: Scores, shape: Shape, *, protect: Ints = (0, -1), layers: Ints | None = None
) -> tuple[Ints, tuple[Ints, ...], tuple[Ints, ...]]:
    """Select the highest-scoring units of each layer for a shape; ties keep the lower index.

    Args:
        scores: of :func:`rank`.
        shape: widths and number of layers to keep.
        protect: layers that are removed last (negative: from the end). Scores from hidden states underrate the first
            layer and the FFN of the last one.
        layers: layers to keep, where something other than the scores chose them.

    Returns:
        The layers, the neurons of each kept layer, the KV groups of each kept layer.
    """
    if layers is None:
        order = scores.layers.double().clone()
        if shape.layers >= len({index % len(order) for index in (*protect, *scores.fixed)}):
            order[list(protect)] = float("inf")
        order[list(scores.fixed)] = float("inf")
        layers = _highest(order, shape.layers)
    ffn = tuple(_highest(scores.ffn[index], shape.intermediate_size) for index in layers)
    groups = tuple(_highest(scores.kv_groups[index], shape.kv_groups) for index in layers)
    return layers, ffn, groups


def make_plan(
    scores: Scores,
    shape: Shape,
    *,
    base_model: str = "",
    method: str = "",
    seed: int = 0,
    protect: Ints = (0, -1),
    layers: Ints | None = None,
) -> PrunePlan:
    """Plan to keep the highest-scoring units for `shape`, without sizes, costs or tokens.

    Args: as for :func:`select`; `base_model`, `method` and `seed` are for the plan's record.
    """
    layers, ffn, groups = select(scores, shape, protect=protect, layers=layers)
    return PrunePlan(
        base_model=base_model, method=method or scores.method, seed=seed, layers=layers, ffn=ffn, kv_groups=groups
    )


def _highest(values: Tensor, count: int) -> Ints:
    """Return the indices of the `count` highest values, ascending."""
    ranked = torch.argsort(values, descending=True, stable=True)[:count]
    return tuple(int(index) for index in ranked.sort().values)
