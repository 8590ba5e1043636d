"""Weights of layers whose neurons are rows of three matrices, as kernels that skip rows read them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

# Threshold that lets every neuron through.
OPEN = -1.0


@dataclass(frozen=True)
class RowWeights:
    """Neurons as rows, in one group or in a leaf for each end of a tree of decisions.

    Attributes:
        w_in: input weights [N, H], or [2^D, N, H] in leaves.
        w_out: output weights of the same shape.
        activation: name of `reference.ACTIVATIONS`, or "drelu".
        w_gate: gate weights of the same shape, or None.
        b_in: input biases [N] or [2^D, N], or None.
        b_out: output bias [H] or [2^D, H], or None.
        w_node: weights of the decisions [2^D - 1, H], or None without leaves.
        b_node: biases of the decisions [2^D - 1], or None without leaves.
        depth: the number D of decisions.
        gate_above: the input row of a neuron is read where the size of its activated gate is above this number.
        value_above: the output row of a neuron is read where the size of its value is above this number.
        top_k: number of neurons of largest value that count, or 0 for all.
    """

    w_in: Tensor
    w_out: Tensor
    activation: str
    w_gate: Tensor | None = None
    b_in: Tensor | None = None
    b_out: Tensor | None = None
    w_node: Tensor | None = None
    b_node: Tensor | None = None
    depth: int = 0
    gate_above: float = OPEN
    value_above: float = OPEN
    top_k: int = 0

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All weights, in the order in which compiled code knows them."""
        return (self.w_in, self.w_gate, self.w_out, self.b_in, self.b_out, self.w_node, self.b_node)
