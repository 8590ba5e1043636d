"""Parts that the GPU kernels share: typed decorators, activations with their slopes, and the nodes of a subtree."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import triton
import triton.language as tl
from triton.runtime import JITFunction

from minigpt.conditional.kernels.weights import TreeWeights

_SIZES = ("tokens", "tree", "size")


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function for the GPU when it is first launched, or let Triton's interpreter run it."""
    # A size of one would become a constant of the code, which has not the methods of a number.
    sizes = [name for name in signature(function).parameters if name in _SIZES]
    return triton.jit(function, do_not_specialize=sizes)


def interpreted() -> bool:
    """Say whether Triton's interpreter runs the kernels, on the CPU: `TRITON_INTERPRET=1` when it was imported."""
    return not isinstance(activate, JITFunction)


def rows_of(weights: TreeWeights) -> tuple[Any, ...]:
    """Return what every kernel gets of the weights: rows, biases, scales and strides.

    What there is not is stood in for by the input rows, which are not read then.
    """
    w = weights
    gate = w.w_in if w.w_gate is None else w.w_gate
    strides = [rows.stride(axis) for axis in (1, 0) for rows in (w.w_in, gate, w.w_out)]
    bias, scales = (w.w_in if extra is None else extra for extra in (w.b_in, w.scales))
    return (w.w_in, gate, w.w_out, bias, scales, *strides)


@kernel
def activate(x: tl.tensor, ACT: tl.constexpr) -> Any:
    """Apply an activation by its number in `reference.ACTIVATIONS`."""
    if ACT == 0:
        y = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACT == 1:
        y = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    elif ACT == 2:
        y = tl.where(x <= 0, 0.0, x)
    else:
        y = x * tl.sigmoid(x)
    return y


@kernel
def slope_of(x: tl.tensor, ACT: tl.constexpr) -> Any:
    """Return the derivative of an activation."""
    if ACT == 0:
        y = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476)) + x * tl.exp(-0.5 * x * x) * 0.3989422804014327
    elif ACT == 1:
        share = tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        y = share + x * share * (1.0 - share) * 1.5957691216057308 * (1.0 + 0.134145 * x * x)
    elif ACT == 2:
        y = tl.where(x > 0, 1.0, 0.0)
    else:
        share = tl.sigmoid(x)
        y = share * (1.0 + x * (1.0 - share))
    return y


@kernel
def level_of(local: tl.tensor, DEPTH: tl.constexpr) -> Any:
    """Return the level of each node of a subtree of this many levels, by its number there: 0; 1, 1; 2, 2, 2, 2; ..."""
    level = local * 0
    for step in tl.static_range(1, DEPTH):
        level += (local + 1 >= (1 << step)).to(tl.int32)
    return level


@kernel
def node_of(root: tl.tensor, local: tl.tensor, level: tl.tensor) -> Any:
    """Return the number in the whole tree of a subtree's node: the one below `root` that `local` counts to."""
    return ((root + 1) << level) + local - (1 << level)
