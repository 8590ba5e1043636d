"""The numbers that compiled kernels are called with: addresses, strides and sizes in one array."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt.conditional.kernels.weights import TOKENS, TreeWeights, activation_number
from minigpt.errors import ConfigError

# Places in the array; `tree_ffn.cpp` has a struct of the same order.
FIELDS = (
    *("w_in", "w_gate", "w_out", "bias", "scale_in", "scale_gate", "scale_out"),
    *("row_in", "row_gate", "row_out", "tree_in", "tree_gate", "tree_out"),
    *("trees", "nodes", "width", "depth", "activation", "cache", "group"),
)
# Fewer tokens than this go through all levels at once: sorting them would cost more than it saves.
GROUP_FROM = 256
# Several trees with fewer bytes of rows than this group no tokens: tokens and sums would be read from memory again for
# each tree, while the rows are in a cache anyway.
LARGE = 64 << 20
_PLAIN_CACHE = 1 << 20

# Arguments: addresses of tokens, output, path, scores and gates (0 for what nobody reads); the number of tokens; the
# number of threads.
Entry = Callable[[int, int, int, int, int, int, int], object]


@dataclass(frozen=True)
class Visits:
    """Paths that tokens took [B, K, D+1], with scores and gates (or [0]): the backward pass needs them."""

    path: Tensor
    score: Tensor
    gate: Tensor


@dataclass(frozen=True)
class Prepared:
    """Trees that are ready for a compiled kernel.

    Attributes:
        weights: the trees; they stay where they are, and changes of their values are seen.
        numbers: values of `FIELDS`, at an address that the compiled functions know.
        entries: the compiled function for each type of tokens.
        threads: the number of threads, or None for torch's.
    """

    weights: TreeWeights
    numbers: Any
    entries: Mapping[torch.dtype, Entry]
    threads: int | None = None

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Compute the layer for tokens [B, H].

        Args:
            x: the tokens.
            out: contiguous memory of the tokens' shape and type to write to, or None for new memory.
        """
        x, y = self._ready(x, out)
        threads = self.threads or torch.get_num_threads()
        self.entries[x.dtype](x.data_ptr(), y.data_ptr(), 0, 0, 0, x.shape[0], threads)
        return y

    def visit(self, x: Tensor) -> tuple[Tensor, Visits]:
        """Compute the layer for tokens [B, H], and return what the backward pass needs as well."""
        x, y = self._ready(x, None)
        shape = (x.shape[0], self.weights.trees, self.weights.levels)
        path, score = torch.empty(shape, dtype=torch.int32), torch.empty(shape)
        gate = torch.empty(0) if self.weights.w_gate is None else torch.empty(shape)
        threads, visits = self.threads or torch.get_num_threads(), (path.data_ptr(), score.data_ptr(), gate.data_ptr())
        self.entries[x.dtype](x.data_ptr(), y.data_ptr(), *visits, x.shape[0], threads)
        return y, Visits(path, score, gate)

    def _ready(self, x: Tensor, out: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return contiguous tokens and room for the output.

        Raises:
            ConfigError: the tokens have another width, type or device than the kernel reads, or `out` does not fit.
        """
        if x.dim() != 2 or x.shape[1] != self.weights.width or x.dtype not in self.entries or not x.is_cpu:
            raise ConfigError(
                f"This kernel takes tokens [any number, {self.weights.width}] of {', '.join(map(str, self.entries))} "
                f"on the CPU, not {list(x.shape)} of {x.dtype} on {x.device}; convert them."
            )
        x = x.contiguous()
        if out is None:
            return x, torch.empty_like(x)
        if out.shape != x.shape or out.dtype != x.dtype or not out.is_cpu or not out.is_contiguous():
            raise ConfigError(f"The output must be contiguous {list(x.shape)} of {x.dtype} on the CPU; leave it out.")
        return x, out


def numbers_of(weights: TreeWeights, *, cache: int | None = None, group: int | None = None) -> Any:
    """Return the values of `FIELDS` as an array of 64-bit integers.

    Args:
        weights: trees whose rows are contiguous, on the CPU.
        cache: bytes of rows that a stage of a grouped batch may read; half of the core's own cache by default.
        group: least number of tokens that are grouped by path, 0 for never; by default `GROUP_FROM` for single and
            for large trees.

    Raises:
        ConfigError: a row is not contiguous, or lies on an accelerator.
    """
    matrices = (weights.w_in, weights.w_gate, weights.w_out)
    if any(rows is not None and (rows.stride(2) != 1 or not rows.is_cpu) for rows in matrices):
        raise ConfigError("Kernels of the CPU read rows that are contiguous and in main memory; call interleave first.")
    scales = (None, None, None) if weights.scales is None else tuple(weights.scales)
    tensors = (*matrices, weights.b_in, *scales)
    strides = [0 if rows is None else rows.stride(1) for rows in matrices]
    strides += [0 if rows is None else rows.stride(0) for rows in matrices]
    sizes = (weights.trees, weights.nodes, weights.width, weights.depth, activation_number(weights.activation))
    if group is None:
        size = weights.trees * weights.nodes * weights.rows * weights.width * weights.w_in.element_size()
        group = GROUP_FROM if weights.trees == 1 or size >= LARGE else 0
    limits = (cache or cache_size() // 2, group)
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    return np.array([*addresses, *strides, *sizes, *limits], dtype=np.int64)


def token_types(weights: TreeWeights) -> tuple[torch.dtype, ...]:
    """Return the types of tokens that go with rows of this type: fp32 rows take fp32 tokens, the others both."""
    return TOKENS[:1] if weights.w_in.dtype == torch.float32 else TOKENS


def cache_size() -> int:
    """Return the bytes of a core's second-level cache, or of a usual one where the system does not say."""
    try:
        return max(os.sysconf("SC_LEVEL2_CACHE_SIZE"), 0) or _PLAIN_CACHE
    except (AttributeError, ValueError, OSError):
        return _PLAIN_CACHE
