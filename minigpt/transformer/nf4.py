"""4-bit NF4 weights with bitsandbytes (Dettmers et al. 2023, QLoRA, section 3), on a GPU or on a CPU.

The projections of the decoder layers are quantized. Embedding, head and norms stay as they are, as in QLoRA. An NF4
layer multiplies by its dequantized weights, so a dense model that holds these weights computes the same, and it is what
is evaluated.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import ConfigError
from minigpt.transformer.arch import bare_matrices, decoder_layers

# Bytes of a parameter that is not quantized.
PLAIN_BYTES = 2
# Weights that share a scale.
BLOCK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Size on disk of a model with 4-bit projections.

    Attributes:
        parameters: parameters of the whole model.
        quantized: those of them that are held in 4 bits.
        quantized_bytes: bytes of the quantized ones, with their scales and tables as bitsandbytes stores them.
        bytes: bytes of the whole model, with everything else in 16 bits.
    """

    parameters: int
    quantized: int
    quantized_bytes: int
    bytes: int


def library() -> Any:
    """Import the bitsandbytes package.

    Raises:
        ConfigError: it is not installed.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes
    except ImportError:
        raise ConfigError("4-bit weights need bitsandbytes: pip install 'minigpt[qlora]'.") from None
    return bitsandbytes


@torch.no_grad()
def round_trip(weight: Tensor, *, double: bool = True) -> tuple[Tensor, int]:
    """Quantize a weight matrix to NF4 in blocks of 64 and dequantize it again.

    Args:
        weight: a matrix on any device that bitsandbytes supports.
        double: quantize the scales of the blocks, too (QLoRA's double quantization: 4.13 instead of 4.5 bits a weight).

    Returns:
        The dequantized matrix in the dtype of `weight`, and the bytes of its quantized form.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    packed, state = library().functional.quantize_4bit(
        weight.detach().contiguous(), quant_type="nf4", compress_statistics=double
    )
    stored = packed.nbytes + sum(part.nbytes for part in state.as_dict(packed=True).values())
    return _dequantize(packed, state).to(weight.dtype), stored


def _dequantize(packed: Tensor, state: Any) -> Tensor:
    """Dequantize packed weights as if they were one long row, and give them their shape back.

    Scales belong to blocks of the flattened matrix. On a CPU, bitsandbytes (0.50.2) takes the wrong ones if a row is
    not a whole number of blocks; one long row avoids that.
    """
    flat = copy(state)
    flat.shape = torch.Size([state.shape.numel()])
    values: Tensor = library().functional.dequantize_4bit(packed, flat)
    return values.reshape(state.shape)


@contextmanager
def four_bit(model: Any, *, double: bool = True) -> Iterator[Footprint]:
    """Give the model's projections their NF4 values inside the block, and the old ones back afterwards.

    Args:
        model: a causal language model; its weights are exchanged in place.
        double: see :func:`round_trip`.

    Yields:
        The size of the quantized model.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    library()
    saved: list[tuple[Tensor, Tensor]] = []
    quantized = stored = 0
    try:
        for module in projections_of(model).values():
            saved.append((module.weight, module.weight.data))
            module.weight.data, size = round_trip(module.weight.data, double=double)
            quantized, stored = quantized + module.weight.numel(), stored + size
        parameters = sum(parameter.numel() for parameter in model.parameters())
        yield Footprint(
            parameters=parameters,
            quantized=quantized,
            quantized_bytes=stored,
            bytes=stored + PLAIN_BYTES * (parameters - quantized),
        )
    finally:
        for parameter, value in saved:
            parameter.data = value


def projections_of(model: Any) -> dict[str, nn.Linear]:
    """Return the linear layers inside the decoder layers that are called as such, by their names in the model."""
    inside = {id(module) for module in decoder_layers(model).modules()}
    bare = bare_matrices(model.config, training=True)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inside and name.rpartition(".")[2] not in bare
    }


def check_projections(model: Any) -> None:
    """Refuse a model none of whose layers can be held in 4 bits.

    Raises:
        ConfigError: its matrices are those of experts alone, or are stored with inputs first.
    """
    if not projections_of(model):
        family = model.config.model_type
        raise ConfigError(f"Layers of {family} have no plain linear layer to hold in 4 bits. Choose heal.adapter=lora.")


def quantize_projections(model: Any, compute: torch.dtype, *, double: bool = True) -> dict[str, nn.Linear]:
    """Replace every projection by a frozen NF4 layer.

    Args:
        model: a dense model; its projections are exchanged in place.
        compute: precision of the matrix products.
        double: see :func:`round_trip`.

    Returns:
        The dense layers, moved to the CPU, by name.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    network, originals = library().nn, {}
    for name, dense in projections_of(model).items():
        layer = network.Linear4bit(
            dense.in_features,
            dense.out_features,
            bias=dense.bias is not None,
            compute_dtype=compute,
            compress_statistics=double,
            quant_type="nf4",
            device="meta",
        )
        layer.support_avx512bf16_for_cpu = False
        layer.weight = network.Params4bit(
            dense.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=double, module=layer
        )
        if dense.bias is not None:
            layer.bias = nn.Parameter(dense.bias.detach().clone(), requires_grad=False)
        layer = layer.to(dense.weight.device)
        if dense.weight.device.type == "cpu" and dense.in_features % BLOCK:
            layer.forward = partial(_forward_any_width, layer)
        model.set_submodule(name, layer)
        originals[name] = dense.to("cpu")
    return originals


def fix_cpu_layers(model: Any) -> None:
    """Correct the forward pass of a loaded model's NF4 layers on a CPU for widths that are not whole blocks.

    bitsandbytes takes the wrong scales there (:func:`_dequantize`). Layers on an accelerator stay as they are.

    Args:
        model: a model with NF4 layers; they are changed in place.
    """
    for layer in model.modules():
        if isinstance(layer, library().nn.Linear4bit) and layer.weight.device.type == "cpu":
            layer.support_avx512bf16_for_cpu = False
            if layer.in_features % BLOCK:
                layer.forward = partial(_forward_any_width, layer)


def _forward_any_width(layer: Any, states: Tensor) -> Tensor:
    """Compute an NF4 layer's output on a CPU for rows that are not whole blocks; see :func:`_dequantize`."""
    bias = None if layer.bias is None else layer.bias.to(layer.compute_dtype)
    weight = _dequantize(layer.weight.data, layer.weight.quant_state).to(layer.compute_dtype)
    return nn.functional.linear(states.to(layer.compute_dtype), weight, bias).to(states.dtype)


@torch.no_grad()
def dequantize_layers(model: Any, names: Iterable[str], deltas: Mapping[str, Tensor]) -> None:
    """Replace NF4 layers by dense ones that hold the dequantized weights plus what adapters add.

    The weights from before the quantization do not come back, because they are not what was trained.

    Args:
        model: a model with NF4 layers; they are exchanged in place.
        names: names of the layers.
        deltas: what is added to the weights of a layer, by name.
    """
    for name in names:
        layer: Any = model.get_submodule(name)
        weight = _dequantize(layer.weight.data, layer.weight.quant_state).float()
        if name in deltas:
            weight += deltas[name].to(weight)
        dense = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        dense.weight = nn.Parameter(weight)
        if layer.bias is not None:
            dense.bias = nn.Parameter(layer.bias.detach().float())
        model.set_submodule(name, dense.train(model.training))


def restore_layers(model: Any, originals: dict[str, nn.Linear], device: torch.device) -> None:
    """Undo :func:`quantize_projections`.

    Args:
        model: the model with NF4 layers.
        originals: the dense layers by name, as they were returned.
        device: where the dense layers go.
    """
    for name, dense in originals.items():
        model.set_submodule(name, dense.to(device))
