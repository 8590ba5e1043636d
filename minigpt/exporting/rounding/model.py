"""Matrices of a model's decoder layers, as rounding sees them: upright, and experts one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from minigpt.transformer.arch import arch_of, decoder_layers
from minigpt.transformer.specs import STACKED, ArchSpec


def matrix_names(model: Any) -> Iterator[str]:
    """Yield the names of all matrices of the decoder layers that formats round.

    These are the weights of linear layers and those of experts, each as `name[number]`. Routers and gates are so small
    that formats keep them in more bits.
    """
    spec = arch_of(model)
    for index, layer in enumerate(decoder_layers(model)):
        for path, module in layer.named_modules():
            yield from _of_module(spec, module, path, f"{spec.layers}.{index}.{path}")


def _of_module(spec: ArchSpec, module: nn.Module, path: str, place: str) -> Iterator[str]:
    """Yield the names of the matrices of one module."""
    from transformers.pytorch_utils import Conv1D

    experts = spec.experts
    is_router = experts is not None and f"{path}.".startswith(f"{experts.router}.")
    if isinstance(module, nn.Linear | Conv1D) and not is_router and min(module.weight.shape) > 1:
        yield f"{place}.weight"
    if experts is not None and path == experts.experts:
        for name, weight in module.named_parameters(recurse=False):
            if weight.ndim == STACKED:
                yield from (f"{place}.{name}[{number}]" for number in range(len(weight)))


def matrix_of(model: Any, name: str) -> Tensor:
    """Return a matrix as [outputs, inputs], however it is stored.

    Args:
        model: a causal language model.
        name: its parameter's name, for an expert with its number: `name[number]`.
    """
    spec, (parameter, _, number) = arch_of(model), name.partition("[")
    weight: Tensor = model.get_parameter(parameter).detach()
    if number:
        expert = weight[int(number.removesuffix("]"))]
        return expert.T if spec.experts is not None and spec.experts.alternating else expert
    return weight.T if spec.stores_transposed(name) else weight
