"""Layers whose neurons are rows of three matrices, for a few tokens: rows that a token does not need are not read.

This is the kernel of decoding for layers with sparse values, for thresholds and for leaves. A prompt of many tokens
needs nearly every row, and dense products are faster there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from minigpt.conditional.kernels.ops import is_installed
from minigpt.conditional.kernels.row_weights import RowWeights

# Most tokens for which skipping rows pays: a dense product reads each row once for all tokens, this kernel does not.
MOST_TOKENS = 2
# Types of rows that the kernel reads.
ROW_TYPES = (torch.float32, torch.bfloat16)


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
