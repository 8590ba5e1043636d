"""Methods that remove layers, as the table calls them: `(Material, number of layers) -> parent layers to keep`."""

from __future__ import annotations

from typing import Any

from torch import nn

from minigpt.methods.depth.collapse import TEXT_TOKENS, Collapse, search
from minigpt.methods.depth.greedy import ENDS, greedy_halves, greedy_layers
from minigpt.methods.depth.loss import module_of, no_attention, search_text
from minigpt.methods.depth.similarity import complement, deepest_block, least_influential, most_similar_block
from minigpt.methods.material import Material, PaperForm
from minigpt.methods.searches import Part
from minigpt.pruning.slicing import no_ffn
from minigpt.transformer.arch import arch_of, decoder_layers, fixed_layers, parameters_of, shape_of
from minigpt.transformer.batches import take_tokens
from minigpt.types import Ints


def shortgpt(material: Material, count: int) -> Ints:
    """Drop the layers of lowest Block Influence (ShortGPT)."""
    layers = _layers(material)
    influence, fixed = material.statistics.layer_cos.tolist(), fixed_layers(material.model)
    return complement(layers, least_influential(influence, layers - count, protect=fixed))


def deeper_layers(material: Material, count: int) -> Ints:
    """Drop the block whose input and output are closest in angle."""
    layers = _layers(material)
    return complement(layers, most_similar_block(material.statistics.angular, layers - count))


def deepest(material: Material, count: int) -> Ints:
    """Drop the last layers in front of the final one."""
    layers = _layers(material)
    return complement(layers, deepest_block(layers, layers - count))


def greedy_blocks(material: Material, count: int) -> Ints:
    """Drop layer after layer, each time the one whose absence costs the least loss."""
    layers, model = _layers(material), material.model
    text = search_text(material.batches, model.device)
    steps = greedy_layers(
        model,
        text,
        layers - count,
        protect=_ends(material),
        known=material.searches.known("layers"),
        reporter=material.reporter,
    )
    material.searches.remember("layers", steps)
    return complement(layers, tuple(step.part[0] for step in steps))


def laco(material: Material, count: int) -> Collapse:
    """Fold layers into the one below them (LaCo), at the highest threshold that leaves `count` layers."""
    text = list(take_tokens(material.batches, TEXT_TOKENS))
    return search(material.model, text, _layers(material) - count, reporter=material.reporter)


def greedy_blocks_paper_form(material: Material, target: int) -> PaperForm:
    """Remove attentions and FFNs one by one until at most `target` parameters are left (BlockPruner).

    `material.model` is changed: modules that add nothing replace the removed ones.
    """
    model = material.model
    total = parameters_of(model)
    outside = (decoder_layers(model)[0].get_submodule(path) for path in arch_of(model).ffn_outside)
    sizes = {half: _parameters(module_of(model, 0, half)) for half in ("attention", "ffn")}
    sizes["ffn"] += sum(_parameters(module) for module in outside)

    def enough(gone: tuple[Part, ...]) -> bool:
        return total - sum(sizes[half] for _, half in gone) <= target

    text = search_text(material.batches, model.device)
    steps = greedy_halves(
        model,
        text,
        enough,
        protect=_ends(material),
        known=material.searches.known("halves"),
        reporter=material.reporter,
    )
    material.searches.remember("halves", steps)
    gone = {step.part for step in steps}
    for index, half in gone:
        _remove(model, index, half)
    shape, layers = shape_of(model), range(_layers(material))
    return PaperForm(
        model=model,
        parameters=_parameters(model),
        note=f"{sum(half == 'attention' for _, half in gone)} attentions and {sum(half == 'ffn' for _, half in gone)} "
        "FFNs removed, each alone, which no stock class can hold",
        kept={
            "ffn": tuple(0 if (index, "ffn") in gone else shape.intermediate_size for index in layers),
            "kv_groups": tuple(0 if (index, "attention") in gone else shape.kv_groups for index in layers),
        },
    )


class NoAttention(nn.Module):
    """Module in the place of a removed attention."""

    def forward(self, hidden_states: Any, *_args: object, **_kwargs: object) -> Any:
        """Return zeros, and no attention weights."""
        return no_attention(hidden_states)


class NoFFN(nn.Module):
    """Module in the place of a removed FFN of a model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.zeros = no_ffn(model)

    def forward(self, hidden_states: Any) -> Any:
        """Return zeros."""
        return self.zeros(hidden_states)


def _parameters(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def _remove(model: Any, index: int, half: str) -> None:
    """Replace one attention or FFN by a module that adds nothing."""
    spec, layer = arch_of(model), decoder_layers(model)[index]
    if half == "attention":
        setattr(layer, spec.attention_module, NoAttention())
        return
    setattr(layer, spec.ffn_module, NoFFN(model))
    for path in spec.ffn_outside:
        setattr(layer, path, nn.Identity())


def _layers(material: Material) -> int:
    """Count the parent's layers."""
    return int(material.model.config.num_hidden_layers)


def _ends(material: Material) -> Ints:
    """Return the layers that a search leaves alone."""
    return ENDS if material.protect_ends else ()
