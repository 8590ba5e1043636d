"""From a row of the table and its material to a plan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minigpt.errors import PlanError
from minigpt.lazy import resolve
from minigpt.methods.depth.collapse import Collapse
from minigpt.methods.importance import Scores, contrasted, score
from minigpt.methods.material import Material
from minigpt.methods.table import Method
from minigpt.transformer.arch import shape_of
from minigpt.types import Ints, PrunePlan, Shape


def from_statistics(material: Material) -> Scores:
    """Scores of the methods that need activation statistics and weight norms only."""
    stats: Any = _WhenAsked(material)
    return score(material.method, stats, material.norms, seed=material.seed, kinds=material.kinds)


class _WhenAsked:
    """The statistics, not taken unless a score reads them: weight norms and chance need no text."""

    def __init__(self, material: Material) -> None:
        self._material = material

    def __getattr__(self, name: str) -> Any:
        return getattr(self._material.stats, name)


def contextual(material: Material) -> Scores:
    """The default's scores, less `plan.contrast` times the same on general text where that is set."""
    domain = from_statistics(material)
    if not material.contrast:
        return domain
    general = score(material.method, material.general_stats, material.norms, kinds=material.kinds)
    pairs = {name: (getattr(domain, name), getattr(general, name)) for name in ("ffn", "kv_groups", "layers")}
    return Scores(
        method=domain.method,
        **{name: contrasted(ours, theirs, material.contrast) for name, (ours, theirs) in pairs.items()},
    )


def rank(method: Method, material: Material) -> Scores | None:
    """The method's scores of units; None where it ranks none."""
    if method.rank is None:
        return None
    found: Scores = resolve(method.rank)(material)
    return found


def choose(method: Method, material: Material, shape: Shape, scores: Scores | None, *, base_model: str) -> PrunePlan:
    """A plan of exactly `shape` (vocabulary aside) with the units and layers that the method keeps.

    Raises:
        PlanError: the shape is narrower than the parent on an axis on which the method ranks nothing.
    """
    parent = shape_of(material.model)
    layers: Ints = tuple(range(parent.layers))
    merges: tuple[Ints, ...] = ()
    if method.layers is not None and shape.layers < parent.layers:
        found = resolve(method.layers)(material, shape.layers)
        layers, merges = (found.layers, found.merges) if isinstance(found, Collapse) else (tuple(found), ())
    elif scores is not None:
        layers = select(scores, shape)[0]
    if scores is not None:
        return make_plan(scores, shape, base_model=base_model, method=method.name, seed=material.seed, layers=layers)
    if (shape.intermediate_size, shape.kv_groups) != (parent.intermediate_size, parent.kv_groups):
        raise PlanError(f"{method.name} ranks neither neurons nor KV groups; leave their widths as they are.")
    return PrunePlan(
        base_model=base_model,
        method=method.name,
        seed=material.seed,
        layers=layers,
        ffn=(tuple(range(parent.intermediate_size)),) * len(layers),
        kv_groups=(tuple(range(parent.kv_groups)),) * len(layers),
        merges=merges,
    )


def select(
    scores: Scores, shape: Shape, *, protect: Ints = (0, -1), layers: Ints | None = None
) -> tuple[Ints, tuple[Ints, ...], tuple[Ints, ...]]:
    """The highest-scoring units of each layer for a shape: (layers, neurons per kept layer, KV groups per kept layer).

    Ties keep the lower index. Layers in `protect` (negative: from the end) go last: the first layer and the last FFN
    are known to carry what no score of hidden states shows. `layers` given are taken as they are.
    """
    if layers is None:
        order = scores.layers.double().clone()
        if shape.layers >= len({index % len(order) for index in protect}):
            order[list(protect)] = float("inf")
        layers = _top(order, shape.layers)
    ffn = tuple(_top(scores.ffn[index], shape.intermediate_size) for index in layers)
    groups = tuple(_top(scores.kv_groups[index], shape.kv_groups) for index in layers)
    return layers, ffn, groups


def _top(values: Tensor, count: int) -> Ints:
    ranked = torch.argsort(values, descending=True, stable=True)[:count]
    return tuple(int(index) for index in ranked.sort().values)


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
    """A plan that keeps the highest-scoring units for `shape`, without sizes, costs or tokens.

    `layers`: the layers to keep, where something else than the scores has chosen them.
    """
    layers, ffn, groups = select(scores, shape, protect=protect, layers=layers)
    return PrunePlan(
        base_model=base_model, method=method or scores.method, seed=seed, layers=layers, ffn=ffn, kv_groups=groups
    )
