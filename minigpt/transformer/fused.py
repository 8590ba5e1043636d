"""Fused projections as parts: inside a block, every projection of a layer is a plain linear layer of its own.

The code that scores, masks, cuts or refits a projection reads one path for each. Families that store several in one
matrix, or store it transposed, are taken apart before and put together after; with nothing changed, no byte changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from minigpt.errors import UnsupportedModel
from minigpt.transformer.arch import arch_of, decoder_layers, head_dim, kv_groups_of
from minigpt.transformer.families import FusedProjection


class _Parts(nn.Module):
    """Parts of a fused projection in its place: their outputs are put into the order of the stored rows.

    Args:
        stored: the module whose place this one takes.
        fused: the row of the table.
        sizes: rows of each part.
        head: size of a head.
    """

    def __init__(self, stored: nn.Module, fused: FusedProjection, sizes: tuple[int, ...], head: int) -> None:
        super().__init__()
        self.layout, self.head = fused.layout, head
        weight, bias = _rows(stored, fused.transposed)
        weights = self._split(weight, sizes)
        biases = [None] * len(sizes) if bias is None else self._split(bias, sizes)
        for name, part_weight, part_bias in zip(fused.parts, weights, biases, strict=True):
            self.add_module(name, _linear(part_weight, part_bias, _flags(stored)))

    def _split(self, rows: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
        """Split stored rows [rows, ...] into those of the parts."""
        if self.layout != "by_head":
            return list(torch.split(rows, list(sizes)))
        by_head = rows.reshape(-1, len(sizes), self.head, *rows.shape[1:])
        return [by_head[:, place].flatten(0, 1) for place in range(len(sizes))]

    def joined(self, rows: list[Tensor], dim: int) -> Tensor:
        """Put rows of the parts into the stored order, along one dimension."""
        if self.layout != "by_head":
            return torch.cat(rows, dim)
        shape, dim = rows[0].shape, dim % rows[0].ndim
        heads = [part.reshape(*shape[:dim], -1, self.head, *shape[dim + 1 :]) for part in rows]
        return torch.stack(heads, dim + 1).flatten(dim, dim + 2)

    def forward(self, states: Tensor) -> Tensor:
        """Project the states by every part."""
        return self.joined([part(states) for part in self.children()], -1)


@contextmanager
def separate_projections(model: Any, layers: Iterable[nn.Module] | None = None) -> Iterator[None]:
    """Take a model's fused projections apart inside the block; the parts may be read, hooked, changed and cut.

    Blocks may lie in each other. Families without fused projections stay as they are.

    Args:
        model: the model.
        layers: the only layers whose projections are taken apart (None: all).

    Raises:
        UnsupportedModel: a fused projection is not stored as plain numbers, as in quantized models.
    """
    spec, places = arch_of(model), list[tuple[nn.Module, FusedProjection, nn.Module]]()
    try:
        for layer in (decoder_layers(model) if layers is None else layers) if spec.fused else ():
            for fused in spec.fused:
                if not _is_open(layer, fused):
                    places.append((layer, fused, _open(model, layer, fused)))
        yield
    finally:
        with torch.no_grad():
            for layer, fused, stored in places:
                _close(layer, fused, stored)


def _is_open(layer: nn.Module, fused: FusedProjection) -> bool:
    """Return whether an outer block took the projection apart already."""
    module = layer.get_submodule(fused.path)
    return isinstance(module, _Parts if fused.parts else nn.Linear)


@torch.no_grad()
def _open(model: Any, layer: nn.Module, fused: FusedProjection) -> nn.Module:
    """Put the parts of a fused projection into its place; returns the stored module, which keeps no weights meanwhile.

    Raises:
        UnsupportedModel: the projection is not stored as plain numbers.
    """
    stored: Any = layer.get_submodule(fused.path)
    if not hasattr(stored, "weight") or not stored.weight.is_floating_point():
        raise UnsupportedModel(
            f"{fused.path} is a {type(stored).__name__}, not a plain linear layer; load the parent unquantized and "
            "merge adapters first."
        )
    if fused.parts:
        sizes = part_sizes(model.config, fused, stored.weight.shape[1 if fused.transposed else 0])
        module: nn.Module = _Parts(stored, fused, sizes, head_dim(model.config))
    else:
        module = _linear(*_rows(stored, fused.transposed), _flags(stored))
    for parameter in stored.parameters():
        parameter.data = parameter.data.new_empty(0)
    _set(layer, fused.path, module.train(stored.training))
    return cast(nn.Module, stored)


def part_sizes(config: Any, fused: FusedProjection, rows: int) -> tuple[int, ...]:
    """Return the number of rows of each part of a fused projection.

    Args:
        config: config of the model.
        fused: row of the table, which has parts.
        rows: rows of the stored matrix.
    """
    if fused.layout != "heads":
        return (rows // len(fused.parts),) * len(fused.parts)
    keys = kv_groups_of(config) * head_dim(config)
    return (rows - 2 * keys, keys, keys)


def _close(layer: nn.Module, fused: FusedProjection, stored: Any) -> None:
    """Write the parts back into the stored module and put it into its place."""
    module: Any = layer.get_submodule(fused.path)
    if isinstance(module, _Parts):
        parts: list[Any] = list(module.children())
        weight = module.joined([part.weight for part in parts], 0)
        has_bias = parts[0].bias is not None
        bias = module.joined([part.bias for part in parts], 0) if has_bias else None
    else:
        weight, bias = module.weight, module.bias
    weight = weight.detach()
    _store(stored, "weight", weight.T if fused.transposed else weight)
    if bias is not None:
        _store(stored, "bias", bias.detach())
    if fused.transposed:
        stored.nf, stored.nx = weight.shape
    else:
        stored.out_features, stored.in_features = weight.shape
    _set(layer, fused.path, stored)


def _store(module: nn.Module, name: str, value: Tensor) -> None:
    """Write a tensor into a parameter of a module, which stays the same object; a new bias gets a parameter."""
    parameter = getattr(module, name)
    if parameter is None:
        setattr(module, name, nn.Parameter(value.contiguous()))
        return
    parameter.grad = None
    parameter.data = value.contiguous()


def _rows(stored: Any, transposed: bool) -> tuple[Tensor, Tensor | None]:
    """Return weight [outputs, inputs] and bias of a stored projection."""
    weight = stored.weight.detach()
    return (weight.T if transposed else weight), (None if stored.bias is None else stored.bias.detach())


def _flags(stored: Any) -> bool:
    """Return whether a stored projection is trained."""
    return bool(stored.weight.requires_grad)


def _linear(weight: Tensor, bias: Tensor | None, trained: bool) -> nn.Linear:
    """Make a linear layer with its own copy of these weights."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    module.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format), requires_grad=trained)
    if bias is not None:
        module.bias = nn.Parameter(bias.clone(), requires_grad=trained)
    return module


def _set(layer: nn.Module, path: str, module: nn.Module) -> None:
    """Set the module at a path inside of a layer."""
    parent, _, name = path.rpartition(".")
    setattr(layer.get_submodule(parent), name, module)
