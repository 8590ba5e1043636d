"""Layers whose neurons are rows of three matrices, for a few tokens: rows that a token does not need are not read.

This is the kernel of decoding for layers with sparse values, for thresholds and for leaves. A prompt of many tokens
needs nearly every row, and dense products are faster there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.conditional.kernels.ops import has_numba

# Most tokens for which skipping rows pays: a dense product reads each row once for all tokens, this kernel does not.
MOST_TOKENS = 2
# Types of rows that the kernel reads.
ROW_TYPES = (torch.float32, torch.bfloat16)
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


def prepare(weights: RowWeights, tokens: torch.dtype) -> Callable[[Tensor], Tensor] | None:
    """Return a function of tokens [B, H] that computes the layer, or None where no kernel can.

    The weights stay where they are, and changes of their values are seen.

    Args:
        weights: the layer.
        tokens: type of the tokens.
    """
    present = [tensor for tensor in weights.tensors if tensor is not None]
    rows = weights.w_in.dtype
    fits = rows in ROW_TYPES and tokens in (torch.float32, rows)
    fits = fits and all(tensor.is_cpu and tensor.dtype == rows and tensor.is_contiguous() for tensor in present)
    if not fits or not has_numba():
        return None
    from minigpt.conditional.kernels import numba_rows

    return numba_rows.prepare(weights)
