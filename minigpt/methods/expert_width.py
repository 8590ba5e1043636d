"""Width of experts: neurons inside of them that add least to the layer's output go, as many from each expert."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from minigpt.errors import UnsupportedModel
from minigpt.methods.formulas import without_experts
from minigpt.methods.material import Material
from minigpt.methods.scores import Scores
from minigpt.pruning.apply import apply_plan
from minigpt.pruning.expert_neurons import contributions, narrow_experts
from minigpt.transformer.arch import arch_of, decoder_layers, ffn_width
from minigpt.transformer.experts import expert_inputs
from minigpt.types import PrunePlan


def rank(material: Material) -> Scores:
    """Score layers and heads as the default method does; neurons of experts are ranked when they are cut.

    Raises:
        UnsupportedModel: the family has no experts.
    """
    name = arch_of(material.model).name
    if arch_of(material.model).experts is None:
        raise UnsupportedModel(f"Method expert-width narrows experts, and {name} has none; choose contextual.")
    return without_experts(material)


def narrowed(material: Material, plan: PrunePlan) -> Any:
    """Keep in each expert the neurons that add most on the calibration text; the plan says how many.

    A neuron counts as it does in dense layers (`contextual`): root mean square of what it gives, with the weight of the
    router, times the norm of its column, here over the tokens that go to its expert.
    """
    model, width = material.model, len(plan.ffn[0])
    if width < ffn_width(model.config):
        inputs = expert_inputs(model, material.batches)
        for layer, states in zip(decoder_layers(model), inputs, strict=True):
            scores = contributions(model, layer, states)
            kept = [row.argsort(descending=True, stable=True)[:width].sort().values for row in scores]
            narrow_experts(model, layer, kept)
        for config in {id(config): config for config in (model.config, decoder_config(model))}.values():
            setattr(config, arch_of(model).width, width)
    everything = tuple(range(width))
    return apply_plan(model, replace(plan, ffn=(everything,) * len(plan.layers)))


def decoder_config(model: Any) -> Any:
    """Return the config of the decoder below the head, which may be another object."""
    return getattr(model.get_submodule(arch_of(model).layers.rpartition(".")[0]), "config", model.config)
