"""Weights of trees in the forms that kernels read: rows of a node side by side, and rows in fewer bits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.conditional.reference import ACTIVATIONS, activation_of
from minigpt.errors import ConfigError

# Rows that kernels read, with the types of tokens that they take.
ROWS = (torch.float32, torch.bfloat16, torch.int8)
TOKENS = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class TreeWeights:
    """K trees of N neurons each, as kernels read them.

    Attributes:
        w_in: input weights [K, N, H]; rows are contiguous, whatever lies between them.
        w_out: output weights [K, N, H].
        depth: the number D of decisions, so that N = 2^(D+1) - 1.
        activation: a name of `reference.ACTIVATIONS`.
        b_in: input biases [K, N], or None.
        w_gate: gate weights [K, N, H], which also decide the path, or None.
        scales: what int8 rows are multiplied by, [3, K, N] for w_in, w_gate and w_out, or None.
    """

    w_in: Tensor
    w_out: Tensor
    depth: int
    activation: str
    b_in: Tensor | None = None
    w_gate: Tensor | None = None
    scales: Tensor | None = None

    def __post_init__(self) -> None:
        activation_of(self.activation)
        nodes = 2 ** (self.depth + 1) - 1
        shape = self.w_in.shape
        others = [rows.shape for rows in (self.w_out, self.w_gate) if rows is not None]
        if len(shape) != 3 or shape[1] != nodes or any(other != shape for other in others):
            raise ConfigError(
                f"Trees of depth {self.depth} have weights [trees, {nodes}, width], but these are "
                f"{[list(other) for other in (shape, *others)]}; give all of them that shape."
            )

    @property
    def trees(self) -> int:
        """The number K of trees."""
        return self.w_in.shape[0]

    @property
    def nodes(self) -> int:
        """The number N of neurons of a tree."""
        return self.w_in.shape[1]

    @property
    def width(self) -> int:
        """The hidden size H."""
        return self.w_in.shape[2]

    @property
    def levels(self) -> int:
        """The number of neurons of a tree that a token visits."""
        return self.depth + 1

    @property
    def rows(self) -> int:
        """The number of rows of a neuron: two, or three with a gate."""
        return 2 if self.w_gate is None else 3

    def bytes_read(self) -> int:
        """Count the bytes of the rows that one token reads."""
        return self.trees * self.levels * self.rows * self.width * self.w_in.element_size()

    def plain(self) -> TreeWeights:
        """Return the same weights as fp32 without scales, which is what int8 and bf16 rows stand for."""

        def of(rows: Tensor | None, scale: Tensor | None) -> Tensor | None:
            if rows is None:
                return None
            return rows.float() if scale is None else rows.float() * scale[..., None]

        scales = (None, None, None) if self.scales is None else self.scales
        w_in, w_out = of(self.w_in, scales[0]), of(self.w_out, scales[2])
        assert w_in is not None and w_out is not None
        bias = None if self.b_in is None else self.b_in.float()
        return TreeWeights(w_in, w_out, self.depth, self.activation, bias, of(self.w_gate, scales[1]))


def interleave(weights: TreeWeights, dtype: torch.dtype | None = None) -> TreeWeights:
    """Copy weights so that the rows of a neuron lie side by side, and a visited node is one run of memory.

    Args:
        weights: trees without scales.
        dtype: type of the rows, which stays as it is by default; int8 rows get one scale each.

    Raises:
        ConfigError: kernels do not read rows of that type.
    """
    dtype = weights.w_in.dtype if dtype is None else dtype
    if dtype not in ROWS:
        raise ConfigError(f"Kernels read rows of {', '.join(map(str, ROWS))}, not of {dtype}; convert the weights.")
    parts = [rows for rows in (weights.w_in, weights.w_gate, weights.w_out) if rows is not None]
    trees, nodes, width = weights.w_in.shape
    room = torch.empty(trees, nodes, len(parts), width, dtype=dtype, device=weights.w_in.device)
    scales = None
    if dtype == torch.int8:
        scales = torch.ones(3, trees, nodes, device=room.device)
    for place, rows in enumerate(parts):
        if scales is None:
            room[:, :, place] = rows.detach()
            continue
        scale = rows.detach().float().abs().amax(-1) / 127
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        room[:, :, place] = (rows.detach().float() / scale[..., None]).round().to(torch.int8)
        scales[2 if place == len(parts) - 1 else place] = scale
    return TreeWeights(
        w_in=room[:, :, 0],
        w_out=room[:, :, len(parts) - 1],
        depth=weights.depth,
        activation=weights.activation,
        b_in=None if weights.b_in is None else weights.b_in.detach().float().contiguous(),
        w_gate=None if weights.w_gate is None else room[:, :, 1],
        scales=scales,
    )


def activation_number(name: str) -> int:
    """Return the number by which compiled kernels know an activation: its place in `reference.ACTIVATIONS`."""
    return list(ACTIVATIONS).index(name)
