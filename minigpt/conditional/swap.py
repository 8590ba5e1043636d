"""Conditional layers in place of the feed-forward layers of a Hugging Face model, in memory and back.

Decoders are those of `minigpt.transformer.families`; encoders of the BERT type, and two decoder families below any
head, stand in a table here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.conditional.base import ConditionalFFN, DenseWeights
from minigpt.conditional.reference import ACTIVATIONS
from minigpt.errors import ConfigError, UnsupportedModel
from minigpt.transformer.arch import refuse_experts
from minigpt.transformer.families import ARCHITECTURES
from minigpt.transformer.fused import separate_projections

# Other names of activations in configs, for functions that compute the same.
_ALIASES = {"gelu_new": "gelu_pytorch_tanh", "gelu_fast": "gelu_pytorch_tanh", "swish": "silu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FFNPaths:
    """Paths of a family's feed-forward layers.

    Attributes:
        layers: path of the list of layers in the model.
        rows: projections into the feed-forward layer, the gate first where there is one.
        columns: projection out of it.
        replaced: module whose place a conditional layer takes.
        bypassed: modules behind it that must pass their input on then.
        below_base: whether `layers` starts at the model's base model, which differs between its heads.
    """

    layers: str
    rows: tuple[str, ...]
    columns: str
    replaced: str = "mlp"
    bypassed: tuple[str, ...] = ()
    below_base: bool = False


# A BERT's layer adds the residual and normalizes in `output`, behind the last projection: only the projection goes.
_BERT = FFNPaths(
    layers="encoder.layer",
    rows=("intermediate.dense",),
    columns="output.dense",
    replaced="intermediate",
    bypassed=("output.dense",),
    below_base=True,
)
_GPT_NEOX = FFNPaths(layers="layers", rows=("mlp.dense_h_to_4h",), columns="mlp.dense_4h_to_h", below_base=True)
_PHI = FFNPaths(layers="layers", rows=("mlp.fc1",), columns="mlp.fc2", below_base=True)
_OTHERS: Mapping[str, FFNPaths] = {"bert": _BERT, "roberta": _BERT, "gpt_neox": _GPT_NEOX, "phi": _PHI}
# Encoders, which cannot be built or pruned: they do not continue text. Their feed-forward layers can be conditional.
ENCODERS = ("bert", "roberta")


def ffn_paths(model: Any) -> FFNPaths:
    """Return where a model's feed-forward layers are.

    Raises:
        UnsupportedModel: the family is in neither table, or its layers have experts.
    """
    model_type = str(getattr(model.config, "model_type", "unknown"))
    if model_type in _OTHERS:
        return _OTHERS[model_type]
    if spec := ARCHITECTURES.get(model_type):
        refuse_experts(model, "Making layers conditional")
        paths = FFNPaths(layers=spec.layers, rows=spec.ffn_rows, columns=spec.ffn_columns, replaced=spec.ffn_module)
        # Where the FFN has no module of its own, its first projection makes room, and the others pass on.
        bypassed = (spec.ffn_activation, spec.ffn_columns)
        return replace(paths, replaced=spec.ffn_rows[0], bypassed=bypassed) if spec.ffn_outside else paths
    known = ", ".join(sorted({*ARCHITECTURES, *_OTHERS}))
    raise UnsupportedModel(
        f"The feed-forward layers of models of type {model_type!r} are not described; choose one of these: {known}."
    )


def is_encoder(config: Any) -> bool:
    """Return whether a model is an encoder of the BERT type, which has conditional layers but no build."""
    return str(getattr(config, "model_type", "unknown")) in ENCODERS


def ffn_layers(model: Any) -> nn.ModuleList:
    """Return the layers of a model in order; each has one feed-forward layer.

    Raises:
        UnsupportedModel: the family is not known.
    """
    paths = ffn_paths(model)
    layers: nn.ModuleList = (model.base_model if paths.below_base else model).get_submodule(paths.layers)
    return layers


def activation_name(config: Any) -> str:
    """Return the name of the activation of a model's feed-forward layers.

    Raises:
        UnsupportedModel: conditional layers do not have this activation.
    """
    names = (getattr(config, field, None) for field in ("hidden_activation", "hidden_act", "activation_function"))
    name = str(next(filter(None, names), "of this config"))
    name = _ALIASES.get(name, name)
    if name not in ACTIVATIONS:
        raise UnsupportedModel(
            f"The activation {name!r} is not known to conditional layers; choose a model with one of "
            f"{', '.join(sorted(ACTIVATIONS))}."
        )
    return name


def dense_weights(model: Any, index: int) -> DenseWeights:
    """Return the weights of a layer's dense feed-forward layer.

    They share memory with the model, unless it stores several projections in one matrix.

    Args:
        model: a model whose layer `index` is dense.
        index: number of the layer, from 0.

    Raises:
        ConfigError: there is no such layer.
        UnsupportedModel: the family is not known, a projection is not plain, or the gate has a bias.
    """
    paths, layer = ffn_paths(model), _layer(model, index)
    with separate_projections(model) if model.config.model_type in ARCHITECTURES else nullcontext():
        *gates, first = (_linear(layer, path) for path in paths.rows)
        last = _linear(layer, paths.columns)
    if any(gate.bias is not None for gate in gates):
        raise UnsupportedModel("The gate of this model has a bias, which conditional layers do not have.")
    return DenseWeights(
        w_in=first.weight.detach(),
        w_out=last.weight.detach().T,
        activation=activation_name(model.config),
        w_gate=gates[0].weight.detach() if gates else None,
        b_in=None if first.bias is None else first.bias.detach(),
        b_out=None if last.bias is None else last.bias.detach(),
    )


def _layer(model: Any, index: int) -> nn.Module:
    """Return a layer by its number."""
    layers = ffn_layers(model)
    if not 0 <= index < len(layers):
        raise ConfigError(f"There is no layer {index}; the model has layers 0 to {len(layers) - 1}.")
    return layers[index]


def _linear(layer: nn.Module, path: str) -> nn.Linear:
    """Return a plain projection of a layer."""
    try:
        module = layer.get_submodule(path)
    except AttributeError:
        raise UnsupportedModel(f"The layer has no dense {path}; put its dense layer back first.") from None
    if not isinstance(module, nn.Linear) or not module.weight.is_floating_point():
        raise UnsupportedModel(
            f"{path} is a {type(module).__name__}, not a plain linear layer; load the model unquantized and merge "
            "adapters first."
        )
    return module


@dataclass(frozen=True, slots=True)
class Swap:
    """Modules that conditional layers replaced, for the way back.

    Attributes:
        originals: parent module, name in it, and the module that was there.
    """

    originals: tuple[tuple[nn.Module, str, nn.Module], ...]

    def undo(self) -> None:
        """Put the original modules back; the conditional layers stay as they are."""
        for parent, name, original in self.originals:
            setattr(parent, name, original)


def put(model: Any, layers: Mapping[int, ConditionalFFN]) -> Swap:
    """Put conditional layers in place of a model's feed-forward layers.

    The layers take over the model's mode (training or evaluation); dtype and device are the caller's business. All are
    checked before any is put in place.

    Args:
        model: a Hugging Face model.
        layers: conditional layers by the number of the layer whose feed-forward layer they replace.

    Returns:
        What is needed to put the dense layers back.

    Raises:
        ConfigError: there is no such layer, or a layer is made for another hidden size.
        UnsupportedModel: the family is not known.
    """
    paths, hidden = ffn_paths(model), int(model.config.hidden_size)
    for index, layer in layers.items():
        _layer(model, index)
        if layer.settings.hidden_size != hidden:
            raise ConfigError(
                f"Layer {index} is made for a hidden size of {layer.settings.hidden_size}, and the model has {hidden}; "
                "load the conditional layers of this model."
            )
    originals: list[tuple[nn.Module, str, nn.Module]] = []
    for index, layer in layers.items():
        place = _layer(model, index)
        originals.append(_replace(place, paths.replaced, layer.train(model.training)))
        originals += [_replace(place, path, nn.Identity()) for path in paths.bypassed]
    return Swap(tuple(originals))


def _replace(layer: nn.Module, path: str, module: nn.Module) -> tuple[nn.Module, str, nn.Module]:
    """Set a submodule, and return its parent, its name and the one that was there."""
    parent_path, _, name = path.rpartition(".")
    parent, original = layer.get_submodule(parent_path), layer.get_submodule(path)
    setattr(parent, name, module)
    return parent, name, original


@contextmanager
def conditional(model: Any, layers: Mapping[int, ConditionalFFN]) -> Iterator[Any]:
    """Run a block with conditional layers in place, and put the dense ones back after it; arguments as of `put`."""
    swap = put(model, layers)
    try:
        yield model
    finally:
        swap.undo()


def conditional_layers(model: nn.Module) -> dict[str, ConditionalFFN]:
    """Return the conditional layers in a model by their module paths."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ConditionalFFN)}


def penalty_of(model: nn.Module) -> Tensor:
    """Return the sum of the penalties that the last training step of a model's conditional layers noted."""
    penalties = [layer.penalty().float() for layer in conditional_layers(model).values()]
    return torch.stack(penalties).sum() if penalties else torch.zeros(())
