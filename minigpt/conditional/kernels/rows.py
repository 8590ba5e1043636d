"""Layers whose neurons are rows of three matrices, for a few tokens: rows that a token does not need are not read.

This is the kernel of decoding for layers with sparse values, for thresholds and for leaves. A prompt of many tokens
needs nearly every row, and dense products are faster there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minigpt.conditional.kernels.ops import is_installed
from minigpt.conditional.kernels.row_weights import RowWeights

# Most tokens for which skipping rows pays: a dense product reads each row once for all tokens, this kernel does not.
MOST_TOKENS = 2
# Types of rows that the kernel reads.
ROW_TYPES = (torch.float32, torch.bfloat16)


def prepare_layer(layer: Any, tokens: torch.dtype, **limits: Any) -> Callable[[Tensor], Tensor] | None:
    """Return a kernel for a layer with input, gate and output rows, or None where there is none.

    Args:
        layer: has `w_in`, `w_out`, `w_gate`, `b_in`, `b_out` and the activation in its settings.
        tokens: type of the tokens.
        **limits: the other fields of :class:`minigpt.conditional.kernels.row_weights.RowWeights`.
    """
    weights = RowWeights(
        w_in=layer.w_in,
        w_out=layer.w_out,
        activation=layer.settings.activation,
        w_gate=layer.w_gate,
        b_in=layer.b_in,
        b_out=layer.b_out,
        **limits,
    )
    return prepare(weights, tokens)


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
    if not fits or not is_installed("numba"):
        return None
    from minigpt.conditional.kernels import numba_rows

    return numba_rows.prepare(weights)
