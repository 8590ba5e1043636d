"""FLAP (An et al. 2023): replace a removed unit by a bias that holds its average contribution.

The shipped form keeps uniform widths and adds biases where the family's config knows them; the paper form ranks all
groups and neurons of all layers together and adds the biases in memory, whatever the family.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from minigpt.methods import formulas
from minigpt.methods.masking import compensate, ensure_bias, keep_highest, mask_units
from minigpt.methods.material import Material, PaperForm
from minigpt.pruning.apply import apply_plan
from minigpt.pruning.slicing import linear
from minigpt.transformer.arch import (
    arch_of,
    decoder_layers,
    head_dim,
    heads_per_group,
    parameters_of,
    refuse_experts,
    unit_costs,
)
from minigpt.transformer.families import ArchSpec
from minigpt.transformer.fused import separate_projections
from minigpt.types import PrunePlan


def with_biases(config: Any) -> Any:
    """Copy a config and switch on the biases that compensation needs, as far as the family has them."""
    refuse_experts(config, "Method flap")
    config = deepcopy(config)
    _enable_biases(config)
    return config


def _enable_biases(config: Any) -> None:
    """Set the config's fields for biases of o and down, where the family has such fields."""
    spec = arch_of(config)
    for field in (spec.output_bias, spec.ffn_bias):
        if isinstance(field, str):
            setattr(config, field, True)


def compensated(material: Material, plan: PrunePlan) -> Any:
    """Cut the model to the plan, and write the mean contribution of the removed units into the biases of o and down.

    One field of the config may switch on the biases of several projections: the other ones get biases of zero.
    """
    model, spec = material.model, arch_of(material.model)
    with separate_projections(model):
        for place, index in enumerate(plan.layers):
            for path, means, kept, field in _bias_sites(material, index, plan.kv_groups[place], plan.ffn[place]):
                if field:
                    compensate(linear(decoder_layers(model)[index], path), means, kept)
            for path in _zero_bias_paths(spec):
                ensure_bias(linear(decoder_layers(model)[index], path))
    _enable_biases(model.config)
    return apply_plan(model, plan)


def _bias_sites(
    material: Material, index: int, groups: tuple[int, ...], neurons: tuple[int, ...]
) -> tuple[tuple[str, Tensor, Tensor, bool | str], ...]:
    """Return for o and down of a layer: path, mean inputs, kept inputs as booleans, and the spec's bias entry."""
    model, statistics = material.model, material.statistics
    spec, width = arch_of(model), head_dim(model.config) * heads_per_group(model.config)
    attention, ffn = (
        torch.zeros(means.shape[1], dtype=torch.bool) for means in (statistics.column_mean, statistics.ffn_mean)
    )
    attention.view(-1, width)[list(groups)] = True
    ffn[list(neurons)] = True
    return (
        (spec.output, statistics.column_mean[index], attention, spec.output_bias),
        (spec.ffn_columns, statistics.ffn_mean[index], ffn, spec.ffn_bias),
    )


def _zero_bias_paths(spec: ArchSpec) -> tuple[str, ...]:
    """Return the projections that get a bias of zero because the same field of the config rules them."""
    switches = {field for field in (spec.output_bias, spec.ffn_bias) if isinstance(field, str)}
    inputs = (spec.query, *spec.key_value) if spec.query_bias in switches else ()
    return (*inputs, *(spec.ffn_rows if spec.ffn_bias in switches else ()))


def paper_form(material: Material, target: int) -> PaperForm:
    """Mask units in one ranking over all layers, by standardized score, until about `target` parameters are left.

    A KV group or a neuron counts the parameters it has (the paper counts a head of 128 as 512/3 neurons). The average
    contribution of a masked unit stays as a bias of o or down.
    """
    model, costs = material.model, unit_costs(material.model)
    scores = formulas.flap(material)
    layers, groups = scores.kv_groups.shape
    sizes = torch.tensor([costs.per_kv_group] * scores.kv_groups.numel() + [costs.per_neuron] * scores.ffn.numel())
    before = parameters_of(model)
    kept = keep_highest(torch.cat([scores.kv_groups.flatten(), scores.ffn.flatten()]), sizes, before - target)
    kept_groups = kept[: layers * groups].view(layers, groups)
    kept_neurons = kept[layers * groups :].view(layers, -1)
    with separate_projections(model):
        for index, layer in enumerate(decoder_layers(model)):
            indices = (tuple(mask[index].nonzero().squeeze(1).tolist()) for mask in (kept_groups, kept_neurons))
            for path, means, stay, _ in _bias_sites(material, index, *indices):
                compensate(linear(layer, path), means, stay)
    mask_units(model, kept_groups, kept_neurons)
    return PaperForm(
        model=model,
        parameters=sum(parameter.numel() for parameter in model.parameters()) - int(sizes[~kept].sum()),
        kept={"ffn": tuple(kept_neurons.sum(1).tolist()), "kv_groups": tuple(kept_groups.sum(1).tolist())},
        note="FLAP as published: one ranking over all layers, with bias compensation. The parameters of masked units "
        "are not counted, the biases are; nothing is smaller on disk.",
    )
