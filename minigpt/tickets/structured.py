"""Structured tickets: rounds that remove neurons, KV groups and layers, and the ranking of units that they give.

A unit ranks the higher the more rounds it survived, and among those that left in the same round by its score after
that round's training. The planner then cuts to any size by this ranking, so that the ticket is really smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.methods.scores import Scores
from minigpt.progress import SILENT, Reporter
from minigpt.tickets.language import Lesson, put
from minigpt.tickets.masks import Masks, best_of_groups
from minigpt.tickets.rounds import MASKS, Schedule, Ticket, Weights, load_masks, load_tensors, run_rounds, save_tensors
from minigpt.tickets.settings import LotterySettings
from minigpt.tickets.weight_rounds import with_last
from minigpt.transformer.arch import arch_of, decoder_layers, head_dim, heads_per_group, refuse_experts, shape_of
from minigpt.transformer.fused import separate_projections
from minigpt.transformer.specs import ArchSpec

# Scores of the units of a model: its layers' importance after a training.
Rank = Callable[[Any], Scores]


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Units of a model that are left, true or false: neurons [L, I], KV groups [L, G] and layers [L]."""

    ffn: Tensor
    kv_groups: Tensor
    layers: Tensor


def all_units(model: Any) -> Units:
    """Return all units of a model.

    Raises:
        UnsupportedModel: the family has experts, or layers with a state, which rounds do not rank.
    """
    refuse_experts(model, "A ticket of whole units")
    shape = shape_of(model)
    return Units(
        ffn=torch.ones(shape.layers, shape.intermediate_size, dtype=torch.bool),
        kv_groups=torch.ones(shape.layers, shape.kv_groups, dtype=torch.bool),
        layers=torch.ones(shape.layers, dtype=torch.bool),
    )


@torch.no_grad()
def unit_masks(model: Any, units: Units) -> dict[str, Tensor]:
    """Return the mask of every matrix of the layers, true for the weights of the units that are left.

    A layer that is gone loses all of its matrices and the biases of its outputs, so that it passes its input on.
    """
    spec = arch_of(model)
    head, ratio = head_dim(model.config), heads_per_group(model.config)
    masks: dict[str, Tensor] = {}
    for index, layer in enumerate(decoder_layers(model)):
        neurons, groups = units.ffn[index], units.kv_groups[index]
        heads = groups.repeat_interleave(ratio * head)
        flags = {path: neurons[:, None] for path in spec.ffn_rows}
        flags |= {path: groups.repeat_interleave(head)[:, None] for path in spec.key_value}
        flags |= {spec.query: heads[:, None], spec.output: heads[None, :], spec.ffn_columns: neurons[None, :]}
        named = _masked_parameters(layer, spec)
        flagged = _zeros_like(layer)
        with separate_projections(model, (flagged,)):
            for path, flag in flags.items():
                flagged.get_submodule(path).weight.copy_(flag & units.layers[index])
            for path in (spec.output, spec.ffn_columns):
                if (bias := flagged.get_submodule(path).bias) is not None:
                    bias.fill_(float(units.layers[index]))
        values = dict(flagged.named_parameters())
        masks |= {f"{spec.layers}.{index}.{name}": values[name] > 0 for name in named}
    return masks


@torch.no_grad()
def units_of(model: Any, masks: Masks) -> Units:
    """Read the units that are left from masks of :func:`unit_masks`."""
    spec, shape = arch_of(model), shape_of(model)
    columns: dict[str, list[Tensor]] = {spec.ffn_columns: [], spec.output: []}
    for index, layer in enumerate(decoder_layers(model)):
        flagged = _zeros_like(layer)
        for name in _masked_parameters(layer, spec):
            flagged.get_parameter(name).copy_(masks[f"{spec.layers}.{index}.{name}"])
        with separate_projections(model, (flagged,)):
            for path, stacks in columns.items():
                stacks.append(flagged.get_submodule(path).weight.any(0))
    ffn, heads = (torch.stack(columns[path]) for path in (spec.ffn_columns, spec.output))
    return Units(ffn=ffn, kv_groups=heads.view(shape.layers, shape.kv_groups, -1).any(2), layers=ffn.any(1))


def _zeros_like(layer: nn.Module) -> Any:
    """Return a copy of a layer on the CPU whose parameters are zero."""
    copy = deepcopy(layer).cpu()
    for parameter in copy.parameters():
        parameter.zero_()
    return copy


def _masked_parameters(layer: nn.Module, spec: ArchSpec) -> tuple[str, ...]:
    """Name the parameters of a layer that units belong to: matrices, and biases of its outputs, as they are stored."""
    matrices = (*spec.ffn_rows, spec.query, *spec.key_value, spec.output, spec.ffn_columns)
    names = [f"{spec.stored(path)}.weight" for path in matrices]
    names += [f"{spec.stored(path)}.bias" for path in (spec.output, spec.ffn_columns)]
    known = {name for name, _ in layer.named_parameters()}
    return tuple(name for name in dict.fromkeys(names) if name in known)


def fewer_units(units: Units, scores: Scores, level: float, layer_level: float) -> Units:
    """Keep the best units of each layer, and the best layers; the first and the last layer stay.

    Args:
        units: units that are left.
        scores: their scores; the others' do not count.
        level: share of all neurons and KV groups of a layer that is kept, at least one.
        layer_level: share of all layers that is kept, at least two.
    """

    def best(flags: Tensor, values: Tensor, share: float) -> Tensor:
        size = flags.shape[1]
        count = max(1, round(share * size))
        kept = best_of_groups(values.float().masked_fill(~flags, -math.inf), count, size)
        return kept & flags

    count = max(2, round(layer_level * len(units.layers)))
    order = scores.layers.float().masked_fill(~units.layers, -math.inf)
    order[[0, -1]] = math.inf
    layers = best_of_groups(order[None], min(count, len(order)), len(order))[0] & units.layers
    return Units(
        ffn=best(units.ffn, scores.ffn, level), kv_groups=best(units.kv_groups, scores.kv_groups, level), layers=layers
    )


def ranking(history: list[tuple[Units, Scores]]) -> Scores:
    """Rank all units by the round that they left in, then by their score after the training before.

    Args:
        history: units that were trained in each round, and their scores after its training.
    """
    last = history[-1][1]
    totals = {name: torch.zeros_like(getattr(last, name)).double() for name in ("ffn", "kv_groups", "layers")}
    for units, scores in history:
        for name, total in totals.items():
            present = getattr(units, name)
            if name != "layers":
                present = present & units.layers[:, None]
            place = getattr(scores, name).double().argsort(dim=-1).argsort(dim=-1).double()
            # A unit that is there overtakes all that are gone; its place in this round replaces earlier places.
            total.copy_(torch.where(present, total.floor() + 1 + place / (place.shape[-1] + 1), total))
    ranks = {name: total.float() for name, total in totals.items()}
    return scores_from(ranks)


def scores_from(tensors: Mapping[str, Tensor]) -> Scores:
    """Make scores of tensors by the names of their fields."""
    return Scores(ffn=tensors["ffn"], kv_groups=tensors["kv_groups"], layers=tensors["layers"])


def structured_rounds(
    folder: Path,
    start: Weights,
    lesson: Lesson,
    rank: Rank,
    settings: LotterySettings,
    *,
    key: str,
    reporter: Reporter = SILENT,
) -> tuple[Ticket, Scores]:
    """Run the rounds of a structured ticket, and rank all units; finished rounds are not repeated.

    Args:
        folder: folder of the rounds.
        start: all weights at the point that survivors are rewound to.
        lesson: the training; its model is used to score, too.
        rank: scores the units of a model.
        settings: rounds, shares, steps of the last training and rewinding.
        key: fingerprint of the start and of what `rank` reads.
        reporter: told about progress.
    """
    model = lesson.model
    levels = tuple((1 - settings.share) ** number for number in range(1, settings.rounds + 1))
    exponent = math.log1p(-settings.layer_share) / math.log1p(-settings.share)

    def scored(weights: Weights, number: int) -> Scores:
        path = folder / f"scores-{number:02d}.safetensors"
        scores = rank(put(model, weights))
        save_tensors({"ffn": scores.ffn, "kv_groups": scores.kv_groups, "layers": scores.layers}, path)
        return scores

    def prune(weights: Weights, masks: Masks, level: float) -> tuple[Weights, Masks]:
        units = units_of(model, masks)
        fewer = fewer_units(units, scored(weights, levels.index(level)), level, level**exponent)
        return weights, unit_masks(model, fewer)

    filled: Any = replace(settings, steps=lesson.recipe.steps).for_units(lesson.recipe.steps)
    schedule = Schedule(levels=levels, pattern="layer", rewinding=filled.rewinding)
    train = with_last(replace(lesson, reporter=reporter), settings.rounds, filled.last)
    names = tuple(unit_masks(model, all_units(model)))
    ticket = run_rounds(folder, start, names, train, schedule, key=key, prune=prune, reporter=reporter)
    scored(ticket.weights, settings.rounds)
    numbers = range(settings.rounds + 1)
    return ticket, ranking([(_units(model, folder, number), _scores(folder, number)) for number in numbers])


def _units(model: Any, folder: Path, number: int) -> Units:
    """Return the units that a round trained."""
    return units_of(model, load_masks(folder / f"round-{number:02d}" / MASKS))


def _scores(folder: Path, number: int) -> Scores:
    """Return the scores after a round's training."""
    return scores_from(load_tensors(folder / f"scores-{number:02d}.safetensors"))
