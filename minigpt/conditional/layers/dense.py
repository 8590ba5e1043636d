"""Parameters of a dense layer, shared by the kinds that compute with all of it in training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from minigpt.conditional.base import ConditionalFFN, Settings, parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSettings(Settings):
    """Settings that say which weights a dense layer holds.

    Attributes:
        neurons: number N of neurons.
        input_bias: whether neurons have an input bias.
        output_bias: whether the layer has an output bias.
    """

    neurons: int
    input_bias: bool = False
    output_bias: bool = False


class DenseFFN(ConditionalFFN):
    """Layer with the weights of a dense one.

    New weights are uniform: inputs within 1/sqrt(H), outputs within 1/sqrt(N).

    Attributes:
        w_in: [N, H].
        b_in: [N], or None.
        w_gate: [N, H], or None.
        w_out: [N, H].
        b_out: [H], or None.
    """

    settings: DenseSettings

    def __init__(self, settings: DenseSettings) -> None:
        super().__init__(settings)
        neurons, hidden = settings.neurons, settings.hidden_size
        self.w_in = self._input_weights(neurons, hidden)
        self.b_in = parameter(neurons) if settings.input_bias else None
        self.w_gate = self._input_weights(neurons, hidden) if settings.gated else None
        self.w_out = parameter(neurons, hidden)
        self.b_out = parameter(hidden) if settings.output_bias else None
        self.reset()

    def _input_weights(self, neurons: int, hidden: int) -> nn.Parameter:
        """Return empty input weights [N, H] as they lie best in memory for this kind."""
        return parameter(neurons, hidden)

    def total_neurons(self) -> int:
        """Return N."""
        return self.settings.neurons

    def _bound(self, name: str) -> float:
        fan_in = self.settings.neurons if name in ("w_out", "b_out") else self.settings.hidden_size
        return 1.0 / math.sqrt(fan_in)
