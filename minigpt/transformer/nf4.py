"""4-bit NF4 weights with bitsandbytes (Dettmers et al. 2023, QLoRA, section 3), on a GPU or on a CPU.

The projections of the decoder layers are quantized; embedding, head and norms stay as they are, as in QLoRA. What is
evaluated is the library's own round trip: an NF4 layer multiplies by the dequantized weights, so a dense model that
holds them computes the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import ConfigError
from minigpt.transformer.arch import decoder_layers

PLAIN_BYTES = 2
BLOCK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a model with 4-bit projections takes on disk.

    `quantized` of `parameters` are held in 4 bits, in `quantized_bytes` with their scales and tables as bitsandbytes
    stores them; `bytes` is all of it, everything else in 16 bits.
    """

    parameters: int
    quantized: int
    quantized_bytes: int
    bytes: int


def library() -> Any:
    """The bitsandbytes package.

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
    """A weight matrix after NF4 (blocks of 64) and back, in its own dtype, and the bytes of its stored form.

    Args:
        weight: on any device that bitsandbytes knows.
        double: quantize the blocks' scales, too (QLoRA's double quantization: 4.13 instead of 4.5 bits a weight).
    """
    packed, state = library().functional.quantize_4bit(
        weight.detach().contiguous(), quant_type="nf4", compress_statistics=double
    )
    stored = packed.nbytes + sum(part.nbytes for part in state.as_dict(packed=True).values())
    return _restored(packed, state).to(weight.dtype), stored


def _restored(packed: Tensor, state: Any) -> Tensor:
    """The values behind packed weights, read as one long row.

    Scales belong to blocks of the flattened matrix; on a CPU, bitsandbytes (0.50.2) takes the wrong ones as soon as a
    row is not a whole number of blocks.
    """
    flat = copy(state)
    flat.shape = torch.Size([state.shape.numel()])
    values: Tensor = library().functional.dequantize_4bit(packed, flat)
    return values.reshape(state.shape)


@contextmanager
def four_bit(model: Any, *, double: bool = True) -> Iterator[Footprint]:
    """Inside the block the model's projections hold their NF4 values; afterwards they hold the old ones again.

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
    """Every linear layer of the decoder layers by its name in the model."""
    inside = {id(module) for module in decoder_layers(model).modules()}
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and id(module) in inside
    }


def quantize_projections(model: Any, compute: torch.dtype, *, double: bool = True) -> dict[str, nn.Linear]:
    """Replace every projection by a frozen NF4 layer; returns the dense ones, moved to the CPU, by name.

    Args:
        model: dense model; its projections are exchanged in place.
        compute: precision of the products.
        double: see :func:`round_trip`.

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
            layer.forward = partial(_any_width, layer)
        model.set_submodule(name, layer)
        originals[name] = dense.to("cpu")
    return originals


def mend_cpu_layers(model: Any) -> None:
    """Give the NF4 layers of a loaded model a forward that is right on a CPU, whatever their width.

    See :func:`_restored`; layers on an accelerator stay as they are.
    """
    for layer in model.modules():
        if isinstance(layer, library().nn.Linear4bit) and layer.weight.device.type == "cpu":
            layer.support_avx512bf16_for_cpu = False
            if layer.in_features % BLOCK:
                layer.forward = partial(_any_width, layer)


def _any_width(layer: Any, states: Tensor) -> Tensor:
    """An NF4 layer's forward on a CPU for rows that are not whole blocks; see :func:`_restored`."""
    bias = None if layer.bias is None else layer.bias.to(layer.compute_dtype)
    weight = _restored(layer.weight.data, layer.weight.quant_state).to(layer.compute_dtype)
    return nn.functional.linear(states.to(layer.compute_dtype), weight, bias).to(states.dtype)


@torch.no_grad()
def dense_again(model: Any, names: dict[str, nn.Linear], deltas: dict[str, Tensor]) -> None:
    """Replace NF4 layers by dense ones that hold their dequantized weights plus `deltas`, by name.

    This is the model that was trained: the weights before quantization do not come back.
    """
    for name in names:
        layer: Any = model.get_submodule(name)
        weight = _restored(layer.weight.data, layer.weight.quant_state).float()
        if name in deltas:
            weight += deltas[name].to(weight)
        dense = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        dense.weight = nn.Parameter(weight)
        if layer.bias is not None:
            dense.bias = nn.Parameter(layer.bias.detach().float())
        model.set_submodule(name, dense.train(model.training))


def put_back(model: Any, originals: dict[str, nn.Linear], device: torch.device) -> None:
    """Undo :func:`quantize_projections`."""
    for name, dense in originals.items():
        model.set_submodule(name, dense.to(device))
