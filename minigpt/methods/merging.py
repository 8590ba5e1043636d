"""Merging of experts: those that go are averaged into those that stay, with their neurons in matching order.

M-SMoE (Li et al. 2023, arXiv 2310.01334) keeps the experts that tokens go to most and gives each other one to the kept
expert whose router logits are most alike. HC-SMoE (Chen et al. 2024, arXiv 2410.08589) joins clusters of experts by the
average distance of their mean outputs; the expert that tokens go to most stands for its cluster. Both papers keep all
rows of the router and send several of them to one expert. Stock classes have one row for each expert, so here rows are
averaged as the experts are, with the tokens of each as its weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minigpt.methods.formulas import expert_frequency
from minigpt.methods.material import Material
from minigpt.methods.scores import Scores
from minigpt.pruning.apply import apply_plan
from minigpt.pruning.expert_neurons import parameters_by_neuron, set_parameters, stored_places, taken
from minigpt.transformer.arch import decoder_layers, experts_of
from minigpt.transformer.experts import expert_inputs, expert_outputs, expert_spec
from minigpt.transformer.specs import ExpertSpec
from minigpt.types import Ints, PrunePlan

# Experts that are merged into each kept one, itself included, by the kept one.
Groups = Mapping[int, Ints]


def by_router(material: Material) -> Scores:
    """Score experts by the share of tokens that go to them, so that the kept ones are M-SMoE's centers."""
    return expert_frequency(material)


def by_outputs(material: Material) -> Scores:
    """Score experts by how long they stand for a cluster of their own while clusters are joined (HC-SMoE)."""
    scores, share = expert_frequency(material), material.statistics.expert_share
    steps = torch.zeros_like(share)
    for layer, points in enumerate(_mean_outputs(material)):
        steps[layer] = torch.tensor(lifetimes(points.numpy(), share[layer].tolist()))
    return replace(scores, experts=steps)


def merged_by_router(material: Material, plan: PrunePlan) -> Any:
    """Merge each expert that goes into the kept one whose router logits are most alike over the calibration text."""
    model, groups = material.model, []
    spec = expert_spec(model)
    inputs = expert_inputs(model, material.batches)
    for index, kept in _kept(plan):
        logits = _router_logits(decoder_layers(model)[index].get_submodule(spec.router), inputs[index])
        groups.append(nearest(logits, kept))
    return _merged(material, plan, groups)


def merged_by_outputs(material: Material, plan: PrunePlan) -> Any:
    """Merge clusters of experts with near mean outputs; their number is that of the experts that the plan keeps."""
    points, share = _mean_outputs(material), material.statistics.expert_share
    groups = [clusters(points[index].numpy(), share[index].tolist(), len(kept)) for index, kept in _kept(plan)]
    return _merged(material, plan, groups)


def _kept(plan: PrunePlan) -> list[tuple[int, Ints]]:
    """Pair each kept layer with its kept experts; none where all experts stay."""
    return list(zip(plan.layers, plan.experts, strict=False)) if plan.experts else []


@torch.no_grad()
def _router_logits(router: nn.Module, states: Tensor) -> Tensor:
    """Return the logits of every expert for each token, [experts, tokens]."""
    weight = router.get_parameter("weight").detach()
    logits: Tensor = torch.nn.functional.linear(states.to(weight.dtype), weight, getattr(router, "bias", None))
    return logits.T.float().cpu()


@torch.no_grad()
def _mean_outputs(material: Material) -> list[Tensor]:
    """Return the mean output of every expert over the calibration text, [experts, hidden] for each layer."""
    model, count = material.model, experts_of(material.model.config)
    spec, means = expert_spec(model), []
    for layer, states in zip(decoder_layers(model), expert_inputs(model, material.batches), strict=True):
        module = layer.get_submodule(spec.experts)
        every = torch.arange(count, device=states.device).repeat(len(states), 1)
        means.append(expert_outputs(module, states, every).mean(0).cpu())
    return means


def nearest(logits: Tensor, kept: Ints) -> Groups:
    """Give each expert to the kept one whose router logits have the highest cosine with its own (M-SMoE, step 2).

    Args:
        logits: [experts, tokens].
        kept: experts that stay, ascending.
    """
    normed = torch.nn.functional.normalize(logits, dim=1)
    similarity = normed @ normed[list(kept)].T
    groups: dict[int, list[int]] = {center: [center] for center in kept}
    for expert in range(len(logits)):
        if expert not in groups:
            groups[kept[int(similarity[expert].argmax())]].append(expert)
    return {center: tuple(sorted(members)) for center, members in groups.items()}


def lifetimes(points: Any, share: Sequence[float]) -> list[float]:
    """Return the step at which each expert stops standing for a cluster, while the nearest clusters are joined.

    The `n` experts with the highest steps are those that stand for the clusters when `n` are left.

    Args:
        points: mean outputs, [experts, hidden].
        share: tokens that go to each expert; of two clusters' experts the one with more stands for both.
    """
    steps = [float(len(points))] * len(points)
    for step, (_, gone) in enumerate(_joins(points, share)):
        steps[gone] = float(step)
    return steps


def clusters(points: Any, share: Sequence[float], count: int) -> Groups:
    """Join the nearest clusters until `count` are left; each is named by the expert that stands for it."""
    groups: dict[int, Ints] = {expert: (expert,) for expert in range(len(points))}
    for stays, gone in _joins(points, share)[: len(points) - count]:
        groups[stays] = tuple(sorted((*groups[stays], *groups.pop(gone))))
    return dict(sorted(groups.items()))


def _joins(points: Any, share: Sequence[float]) -> list[tuple[int, int]]:
    """Return the joins of average linkage in order, as (expert that stands for the cluster, expert that stops to)."""
    from scipy.cluster.hierarchy import linkage

    if len(points) < 2:
        return []
    heads, joins = list(range(len(points))), []
    for first, second, *_ in linkage(np.asarray(points, dtype=np.float64), method="average"):
        stays, gone = sorted((heads[int(first)], heads[int(second)]), key=lambda expert: (-share[expert], expert))
        joins.append((stays, gone))
        heads.append(stays)
    return joins


@torch.no_grad()
def _merged(material: Material, plan: PrunePlan, groups: Sequence[Groups]) -> Any:
    """Write the averages of groups into the experts that stand for them, and cut the model to the plan."""
    model, spec = material.model, expert_spec(material.model)
    for (index, _), members in zip(_kept(plan), groups, strict=True):
        layer, share = decoder_layers(model)[index], material.statistics.expert_share[index]
        module, router = layer.get_submodule(spec.experts), layer.get_submodule(spec.router)
        experts = [dict(one) for one in _single(module, spec)]
        for center, others in members.items():
            weights = shares(share, others)
            experts[center] = average(module, spec, center, others, weights)
            for value in router.parameters(recurse=False):
                rows = value.detach()[list(others)].float()
                value[center] = torch.einsum("n...,n->...", rows, weights.to(rows.device)).to(value.dtype)
        set_parameters(module, experts)
    kept = tuple(tuple(sorted(members)) for members in groups)
    return apply_plan(model, replace(plan, experts=kept) if plan.experts else plan)


def _single(module: nn.Module, spec: ExpertSpec) -> list[dict[str, Tensor]]:
    """Return the parameters of each expert by itself."""
    values = dict(module.named_parameters(recurse=False))
    count = values["down_proj"].shape[0] if parameters_by_neuron(module, spec) else 0
    return [{name: value.detach()[expert] for name, value in values.items()} for expert in range(count)]


def shares(share: Tensor, members: Ints) -> Tensor:
    """Return the weights of a group's members: the tokens that go to each, or equal ones where none goes to any."""
    weights = share[list(members)].double()
    return (weights / weights.sum() if weights.sum() > 0 else torch.full_like(weights, 1 / len(members))).float()


def average(module: nn.Module, spec: ExpertSpec, center: int, members: Ints, weights: Tensor) -> dict[str, Tensor]:
    """Average experts with their neurons in the order of those of the center."""
    total: dict[str, Tensor] = {}
    for member, weight in zip(members, weights.tolist(), strict=True):
        values = taken(module, spec, member, matching(module, spec, center, member))
        for name, value in values.items():
            total[name] = total.get(name, 0) + weight * value.float()
    stored = dict(module.named_parameters(recurse=False))
    return {name: value.to(stored[name].dtype) for name, value in total.items()}


def matching(module: nn.Module, spec: ExpertSpec, center: int, other: int) -> Tensor:
    """Return the neurons of an expert in the order in which they match those of another one best.

    The sum of inner products of all weights of matched neurons is as large as it can be (Ainsworth et al. 2022, Git
    Re-Basin, weight matching of one hidden layer, arXiv 2209.04836).

    Args:
        module: the experts of a layer.
        spec: their row of the table.
        center: the expert whose order is taken.
        other: the expert whose neurons are ordered.
    """
    from scipy.optimize import linear_sum_assignment

    first, second = (_by_neuron(module, spec, expert) for expert in (center, other))
    if center == other:
        return torch.arange(len(first))
    _, order = linear_sum_assignment((first @ second.T).cpu().numpy(), maximize=True)
    return torch.tensor(order, dtype=torch.long)


def _by_neuron(module: nn.Module, spec: ExpertSpec, expert: int) -> Tensor:
    """Return all weights of an expert by neuron, [neurons, weights], in fp32."""
    places, values = parameters_by_neuron(module, spec), dict(module.named_parameters(recurse=False))
    width, columns = values["down_proj"].shape[places["down_proj"]], []
    neurons = torch.arange(width, device=values["down_proj"].device)
    for name, dim in places.items():
        one = values[name].detach()[expert].movedim(dim - 1, 0).reshape(values[name].shape[dim], -1).float()
        parts = stored_places(neurons, width, name, spec)
        # Of a matrix with gate and up, every neuron has two rows.
        rows = parts.reshape(width, -1) if spec.alternating else parts.reshape(-1, width).T
        columns += [one[rows[:, half]] for half in range(rows.shape[1])]
    return torch.cat(columns, 1)
