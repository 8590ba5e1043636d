"""The exchange of gradients and weights between the processes that train one model together.

Each process computes the gradients of its part of a batch. The sum of all parts arrives where a parameter is owned, the
owner takes the optimizer's step, and everyone receives the new weights. Averages, best weights and moments exist once
among all processes (stage 1 of ZeRO, Rajbhandari et al. 2020, arXiv 1910.02054, section 5.1). A parameter has one owner
as a whole, because Muon moves whole matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.distributed.group import Group
from minigpt.healing.data import PaddedBatch


def owners_of(sizes: Sequence[int], world: int) -> list[int]:
    """Give each parameter to a process, the largest first, always to the one that has the least so far.

    Args:
        sizes: number of values of each parameter.
        world: number of processes.
    """
    loads, owners = [0] * world, [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        owners[index] = loads.index(min(loads))
        loads[owners[index]] += sizes[index]
    return owners


def divide(lengths: Sequence[int], world: int) -> list[list[int]]:
    """Divide the rows of a batch among processes, with about as many tokens for each.

    Args:
        lengths: tokens of each row.
        world: number of processes.
    """
    parts: list[list[int]] = [[] for _ in range(world)]
    for index, owner in enumerate(owners_of(lengths, world)):
        parts[owner].append(index)
    return parts


def fitting(rows: Sequence[int], lengths: Sequence[int], tokens: int, windows: int) -> list[list[int]]:
    """Put rows into as few groups as it takes, in order, of which none has more than `tokens` tokens.

    Args:
        rows: indices of the rows.
        lengths: tokens of each row of the batch.
        tokens: most tokens of a group.
        windows: most rows of a group.
    """
    groups: list[list[int]] = []
    for row in rows:
        fits = (
            group
            for group in groups
            if len(group) < windows and sum(lengths[index] for index in group) + lengths[row] <= tokens
        )
        if (group := next(fits, None)) is None:
            groups.append([row])
        else:
            group.append(row)
    return groups


def rows_of(batch: PaddedBatch, rows: Sequence[int]) -> PaddedBatch:
    """Return a batch of some rows of another one."""
    picked = torch.tensor(rows, dtype=torch.long)
    lengths = batch.lengths[picked]
    origins = None if batch.origins is None else batch.origins[picked]
    return PaddedBatch(ids=batch.ids[picked], lengths=lengths, origins=origins)


@dataclass(frozen=True, slots=True)
class _Flat:
    """One tensor that holds a value for each weight: a segment for each owner, of equal lengths."""

    whole: Tensor
    segment: Tensor
    views: list[Tensor]


class Exchange:
    """The part of a model's trained parameters that one process owns, and its exchange with the others.

    Args:
        parameters: all trained parameters, the same in each process.
        group: the processes; None for one that works alone, which owns everything and exchanges nothing.

    Attributes:
        indices: numbers of the parameters that this process owns.
        own: what the optimizer moves.
        filled: what the backward pass gives gradients.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], group: Group | None = None) -> None:
        self.parameters, self.group = list(parameters), group
        self.world, self.rank = (1, 0) if group is None else (group.world, group.rank)
        self._owners = owners_of([parameter.numel() for parameter in parameters], self.world)
        self.indices = [index for index, owner in enumerate(self._owners) if owner == self.rank]
        self.own = [self.parameters[index] for index in self.indices]
        self.filled: Sequence[nn.Parameter] = self.parameters
        self._device = self.parameters[0].device
        self._flats: dict[torch.dtype, _Flat] = {}

    def parts(self, batch: PaddedBatch, tokens: int = 0, windows: int = 0) -> Iterator[tuple[PaddedBatch, float]]:
        """Yield what this process reads of a batch, and which share of the batch's predicted tokens that is.

        Args:
            batch: the whole batch, the same in each process.
            tokens: most tokens of a part (0: no limit, and so one part at most).
            windows: most rows of a part.
        """
        if self.group is None:
            yield batch, 1.0
            return
        lengths = batch.lengths.tolist()
        rows = divide(lengths, self.group.world)[self.group.rank]
        limits = (tokens, windows) if tokens else (sum(lengths), len(lengths))
        for part in fitting(rows, lengths, *limits):
            predicted = sum(lengths[row] - 1 for row in part)
            yield rows_of(batch, part), predicted / (sum(lengths) - len(lengths))

    @property
    def read(self) -> list[Tensor]:
        """Weights that the forward pass reads."""
        return list(self.parameters)

    def scale(self, share: float) -> float:
        """Return the factor of a part's gradient in the backward pass, where `share` counts afterwards."""
        return 1.0

    def whole(self, index: int, rows: Tensor) -> Tensor:
        """Return the whole tensor of which this process has a part; parameters with one owner are whole."""
        return rows

    def rows(self, index: int, whole: Tensor) -> Tensor:
        """Return this process's part of a whole tensor."""
        return whole

    def clear(self, dtype: torch.dtype) -> None:
        """Begin a step without gradients of this precision."""
        self._flat(dtype).whole.zero_()

    @torch.no_grad()
    def add(self, gradients: Sequence[Tensor | None], share: float, dtype: torch.dtype) -> None:
        """Add the gradients of a part of the batch, which counts for a share of it."""
        both = zip(self._flat(dtype).views, gradients, strict=True)
        pairs = [(view, gradient) for view, gradient in both if gradient is not None]
        if pairs:
            torch._foreach_add_([view for view, _ in pairs], [gradient.to(dtype) for _, gradient in pairs], alpha=share)

    @torch.no_grad()
    def reduce(self, dtype: torch.dtype) -> None:
        """Put the sum of all processes' gradients into `.grad` of the parameters that this one owns."""
        flat = self._flat(dtype)
        segment = flat.segment
        if self.group is not None:
            segment = torch.empty_like(flat.segment)
            self.group.scatter_sum(segment, flat.whole)
        for parameter in self.parameters:
            parameter.grad = None
        start = 0
        for parameter in self.own:
            parameter.grad = segment[start:][: parameter.numel()].view(parameter.shape).to(parameter.dtype)
            start += parameter.numel()

    def clip(self, largest: float) -> None:
        """Scale the gradients down to a norm over the parameters of all processes."""
        if self.group is None:
            nn.utils.clip_grad_norm_(self.parameters, largest)
            return
        gradients = [parameter.grad for parameter in self.own if parameter.grad is not None]
        device = self._device
        squares = torch.zeros((), device=device)
        if gradients:
            squares += torch.stack(torch._foreach_norm(gradients)).square().sum()
        norm = self.group.add_up(squares).sqrt()
        scale = (largest / (norm + 1e-6)).clamp(max=1.0)
        if gradients:
            torch._foreach_mul_(gradients, scale)

    @torch.no_grad()
    def spread(self, targets: Sequence[Tensor]) -> None:
        """Put the owners' values of all parameters into tensors of the same shapes, in the precision of those."""
        if self.group is None:
            return
        flat = self._flat(targets[0].dtype)
        views = [flat.views[index] for index in self.indices]
        if views:
            torch._foreach_copy_(views, [parameter.detach() for parameter in self.own])
        self.group.gather_segments(flat.whole, flat.segment.clone())
        torch._foreach_copy_([target.detach() for target in targets], flat.views)

    def _flat(self, dtype: torch.dtype) -> _Flat:
        """Return the flat tensor of a precision, which gradients and weights use in turns."""
        if dtype not in self._flats:
            self._flats[dtype] = self._laid_out(dtype)
        return self._flats[dtype]

    def _laid_out(self, dtype: torch.dtype) -> _Flat:
        """Make a flat tensor, and views of it for all parameters."""
        loads, starts = [0] * self.world, []
        for parameter, owner in zip(self.parameters, self._owners, strict=True):
            starts.append(loads[owner])
            loads[owner] += parameter.numel()
        length = max(loads)
        whole = torch.zeros(self.world * length, dtype=dtype, device=self._device)
        placed = zip(self.parameters, self._owners, starts, strict=True)
        views = [
            whole[owner * length + start :][: parameter.numel()].view(parameter.shape)
            for parameter, owner, start in placed
        ]
        return _Flat(whole, whole[self.rank * length :][:length], views)
