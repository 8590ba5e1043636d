"""Layers whose neurons are rows of three matrices, for a few tokens: rows that a token does not need are not read.

This is the kernel of decoding for layers with sparse values, for thresholds and for leaves. A prompt of many tokens
needs nearly every row, and dense products are faster there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.conditional.kernels.ops import is_installed
from minigpt.conditional.kernels.row_weights import RowWeights

# Types of rows that the kernels read.
ROW_TYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Place:
    """A type of device with the kernel that runs there.

    Attributes:
        package: package that the kernel needs.
        module: function that returns the module of the kernel.
        most_tokens: most tokens for which skipping rows pays: a dense product reads each row once for all of them.
        plain_skips: whether plain torch skips rows as well, which needs their number; on a GPU the host would wait.
    """

    package: str
    module: Callable[[], Any]
    most_tokens: int
    plain_skips: bool


def _numba() -> Any:
    """Return the kernel of the CPU."""
    from minigpt.conditional.kernels import numba_rows

    return numba_rows


def _triton() -> Any:
    """Return the kernel of the GPU."""
    from minigpt.conditional.kernels import triton_rows

    return triton_rows


_CPU = Place("numba", _numba, 2, True)
# A program of the GPU's kernel reads its rows for one token alone, and a dense product reads them once for all tokens:
# with several sequences the kernel reads more than that product, however few rows a token visits.
_GPU = Place("triton", _triton, 1, False)
PLACES: Mapping[str, Place] = {"cpu": _CPU, "cuda": _GPU}
_ELSEWHERE = Place("", _numba, 0, False)


def place_of(tensor: Tensor) -> Place:
    """Return what is known of the kernels where a tensor is."""
    return PLACES.get(tensor.device.type, _ELSEWHERE)


def most_tokens(x: Tensor) -> int:
    """Return the most tokens that a kernel computes faster than dense products, where these tokens are."""
    return place_of(x).most_tokens


def plain_skips(x: Tensor) -> bool:
    """Say whether plain torch computes tokens [B, H] faster if it looks up the rows that they need."""
    place = place_of(x)
    return place.plain_skips and len(x) <= place.most_tokens


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

    A kernel may read copies of the weights, so it has to be prepared again when they change; `KernelCache` does that.

    Args:
        weights: the layer.
        tokens: type of the tokens.
    """
    present = [tensor for tensor in weights.tensors if tensor is not None]
    rows, place, device = weights.w_in.dtype, place_of(weights.w_in), weights.w_in.device
    fits = rows in ROW_TYPES and tokens in (torch.float32, rows)
    fits = fits and all(
        tensor.device == device and tensor.dtype == rows and tensor.is_contiguous() for tensor in present
    )
    if not fits or device.type not in PLACES or not is_installed(place.package):
        return None
    return place.module().prepare(weights)  # type: ignore[no-any-return]
