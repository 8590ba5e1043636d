"""Training of a model whose weights are divided among the processes, row by row of each matrix (FSDP2).

Forward and backward pass run on a twin of the model, of which each process keeps its rows and receives those of a layer
while it is computed (`torch.distributed.fsdp.fully_shard`). The optimizer, averages and best weights exist once among
all processes, for the same rows, in fp32. The model itself waits in the memory of the processor until the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.distributed.group import Group
from minigpt.healing.data import PaddedBatch
from minigpt.healing.exchange import Exchange, rows_of
from minigpt.healing.recipe import Recipe
from minigpt.machine import has_fast_bf16, release
from minigpt.transformer.arch import decoder_layers

# Parameters from which a model is divided: twice as many no longer fit on a card of 80 GB with gradients and twin.
SHARDED_PARAMETERS = 2_000_000_000


def is_to_be_sharded(model: Any, recipe: Recipe, masked: bool) -> bool:
    """Say whether a model is so large that several processes divide its weights.

    Args:
        model: the model that is trained.
        recipe: adapters are small, so models with adapters are not divided.
        masked: whether only some weights may change, which is decided for whole matrices.
    """
    size = sum(parameter.numel() for parameter in model.parameters())
    return recipe.adapter == "full" and not masked and size >= SHARDED_PARAMETERS


class ShardedExchange(Exchange):
    """The rows of all parameters that one process keeps.

    Args:
        model: the model that is trained; it moves to the processor's memory.
        parameters: its trained parameters.
        group: the processes.
        recipe: gives the precision.

    Attributes:
        twin: the divided model, which computes.
    """

    def __init__(self, model: Any, parameters: Sequence[nn.Parameter], group: Group, recipe: Recipe) -> None:
        super().__init__(parameters, group)
        self.members: Group = group
        self._device = group.device
        half = recipe.precision != "fp32" and has_fast_bf16(group.device)
        model.to("cpu")
        release()
        self.twin = _divided(deepcopy(model).to(torch.bfloat16 if half else torch.float32), group)
        trained = [parameter.requires_grad for parameter in model.parameters()]
        pairs = zip(self.twin.parameters(), trained, strict=True)
        self.filled = [parameter for parameter, is_trained in pairs if is_trained]
        self.indices = list(range(len(self.parameters)))
        self.own = [nn.Parameter(_local(parameter).detach().float().clone()) for parameter in self.filled]

    @property
    def read(self) -> list[Tensor]:
        """This process's rows of the twin's weights."""
        return [_local(parameter) for parameter in self.filled]

    def parts(self, batch: PaddedBatch, tokens: int = 0, windows: int = 0) -> Iterator[tuple[PaddedBatch, float]]:
        """Yield this process's part of a batch; one without a part computes along, and that counts for nothing.

        There are no limits: every pass gathers weights from all processes, so all take equally many parts, one.
        """
        parts = list(super().parts(batch))
        yield from parts or [(rows_of(batch, [0]), 0.0)]

    def scale(self, share: float) -> float:
        """Return the factor of a part's gradient: the exchange takes the mean of all processes."""
        return share * self.world

    def clear(self, dtype: torch.dtype) -> None:
        """Drop the gradients of the last step."""
        for parameter in self.filled:
            parameter.grad = None

    def add(self, gradients: Sequence[Tensor | None], share: float, dtype: torch.dtype) -> None:
        """Do nothing: the backward pass has exchanged the gradients."""
        return None

    def reduce(self, dtype: torch.dtype) -> None:
        """Put the gradients of this process's rows into `.grad` of `own`."""
        for own, parameter in zip(self.own, self.filled, strict=True):
            own.grad = None if parameter.grad is None else _local(parameter.grad).float()
            parameter.grad = None

    @torch.no_grad()
    def spread(self, targets: Sequence[Tensor]) -> None:
        """Put the values of `own` into the twin, or as whole tensors into the model's parameters."""
        if targets and targets[0] is self.parameters[0]:
            for index, target in enumerate(targets):
                target.data.copy_(self.whole(index, self.own[index]))
            return
        torch._foreach_copy_(self.read, [own.detach() for own in self.own])
        self.twin.reshard()  # after a pass without gradients the outermost weights are still whole, and now outdated

    def whole(self, index: int, rows: Tensor) -> Tensor:
        """Return the whole tensor of which each process has these rows of a parameter; a single number is whole."""
        if rows.ndim == 0:
            return rows
        shape = self.parameters[index].shape
        most = -(-shape[0] // self.world)
        padded = rows.new_zeros(most, *shape[1:])
        padded[: len(rows)] = rows.detach()
        on_device = padded.to(self._device)
        return self.members.rows(on_device).flatten(0, 1)[: shape[0]].cpu()

    def rows(self, index: int, whole: Tensor) -> Tensor:
        """Return this process's rows of a whole tensor."""
        if whole.ndim == 0:
            return whole
        parts = whole.chunk(self.world)
        return parts[self.rank] if self.rank < len(parts) else whole[:0]


def _divided(twin: Any, group: Group) -> Any:
    """Divide the weights of a model in the processor's memory, a layer at a time."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(group.device.type, (group.world,))
    for layer in decoder_layers(twin):
        fully_shard(layer.to(group.device), mesh=mesh)
    fully_shard(twin.to(group.device), mesh=mesh)
    return twin


def _local(tensor: Any) -> Tensor:
    """Return this process's rows of a divided tensor."""
    rows: Tensor = tensor.to_local()
    return rows
