"""Exponential moving average of the weights, which is evaluated and kept instead of the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """An exponential moving average of parameters; with decay 0 it is the parameters themselves.

    The decay of update n is (1 + n) / (10 + n), at most `decay`, so that the initial weights do not weigh on a short
    run.

    Args:
        parameters: the parameters that are averaged.
        decay: largest share of the old average that an update keeps, 0 or more and below 1.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay, self.updates = list(parameters), decay, 0
        self.values: list[Tensor] = [p.detach().clone() for p in self.parameters] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        """Add the current values of the parameters to the average."""
        if self.values:
            self.updates += 1
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the parameters hold the average inside the block; storage is exchanged, nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        """Exchange the storage of the parameters and of the average."""
        for index, value in enumerate(self.values):
            parameter = self.parameters[index]
            parameter.data, self.values[index] = value, parameter.data
