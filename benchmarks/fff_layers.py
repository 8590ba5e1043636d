"""The layers that `fff.py` measures: shapes, random trees, the dense layers beside them, and the check of outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from minigpt.conditional import reference
from minigpt.conditional.kernels.layout import Visits
from minigpt.conditional.kernels.weights import TreeWeights

# Tokens of which the slow plain functions compute each output; all others are computed in fp64 along their paths.
SLOWLY = 32
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}


@dataclass(frozen=True)
class Shape:
    """One feed-forward layer.

    Attributes:
        name: the model that it is of.
        width: hidden size.
        dense: neurons of the dense layers to compare with; speed-ups are those against the last.
        trees: number of trees.
        depth: decisions of a tree.
        gated: whether neurons have a gate.
        activation: a name of `reference.ACTIVATIONS`.
    """

    name: str
    width: int
    dense: tuple[int, ...]
    trees: int
    depth: int
    gated: bool
    activation: str

    @property
    def nodes(self) -> int:
        """Neurons of all trees."""
        return self.trees * (2 ** (self.depth + 1) - 1)

    @property
    def visited(self) -> int:
        """Neurons that a token visits."""
        return self.trees * (self.depth + 1)


SHAPES = (
    Shape("bert-base", 768, (3072, 4095), 1, 11, False, "gelu"),
    Shape("smollm2-135m", 576, (1536,), 3, 8, True, "silu"),
    Shape("1b", 2048, (8192,), 1, 12, True, "silu"),
    Shape("7b", 4096, (11008,), 5, 10, True, "silu"),
)


def random_trees(shape: Shape, generator: torch.Generator) -> TreeWeights:
    """Draw normal weights of a size that keeps scores and outputs near one."""
    rows = (shape.trees, 2 ** (shape.depth + 1) - 1, shape.width)

    def draw(scale: float) -> Tensor:
        return torch.randn(rows, generator=generator) * scale

    return TreeWeights(
        w_in=draw(shape.width**-0.5),
        w_out=draw(shape.visited**-0.5),
        depth=shape.depth,
        activation=shape.activation,
        b_in=torch.randn(rows[:2], generator=generator) / 8,
        w_gate=draw(shape.width**-0.5) if shape.gated else None,
    )


class Dense(nn.Module):
    """A dense layer with random weights, in the forms that a user would try; weights lie as in `torch.nn.Linear`."""

    w_in: Tensor
    b_in: Tensor
    w_gate: Tensor | None
    w_out: Tensor

    def __init__(self, shape: Shape, neurons: int, dtype: torch.dtype, generator: torch.Generator) -> None:
        super().__init__()

        def matrix(*size: int) -> nn.Parameter:
            drawn = torch.randn(size, generator=generator) * size[1] ** -0.5
            return nn.Parameter(drawn.to(dtype), requires_grad=False)

        self.w_in, self.w_out = matrix(neurons, shape.width), matrix(shape.width, neurons)
        self.b_in = nn.Parameter(torch.zeros(neurons, dtype=dtype), requires_grad=False)
        self.w_gate = matrix(neurons, shape.width) if shape.gated else None
        self.act = reference.activation_of(shape.activation)
        self.rooms: dict[int, list[Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer as a model does."""
        hidden = functional.linear(x, self.w_in, self.b_in)
        if self.w_gate is None:
            return functional.linear(self.act(hidden), self.w_out)
        return functional.linear(self.act(functional.linear(x, self.w_gate)) * hidden, self.w_out)

    def in_place(self, x: Tensor) -> Tensor:
        """Compute the layer without asking for memory."""
        if x.shape[0] not in self.rooms:
            sizes = (self.w_in.shape[0], self.w_in.shape[0], x.shape[1])
            self.rooms = {x.shape[0]: [x.new_empty(x.shape[0], size) for size in sizes]}
        hidden, gate, y = self.rooms[x.shape[0]]
        torch.addmm(self.b_in, x, self.w_in.t(), out=hidden)
        if self.w_gate is None:
            hidden = self.act(hidden)
        else:
            torch.mm(x, self.w_gate.t(), out=gate)
            hidden.mul_(self.act(gate))
        return torch.mm(hidden, self.w_out.t(), out=y)

    def compiled(self) -> Callable[[Tensor], Tensor]:
        """Return the layer compiled for one shape of tokens, with weights that the compiler may lay out anew."""
        return torch.compile(self, dynamic=False, options={"freezing": True})  # type: ignore[no-any-return]


def check(weights: TreeWeights, x: Tensor, y: Tensor, visits: Visits) -> float:
    """Return the largest error of outputs, computed in fp64 along the paths that were taken.

    Raises:
        AssertionError: a path does not follow the scores, or an output is wrong.
    """
    exact, margin, path = weights.plain(), 0.0, visits.path.long()
    tokens, total = x.double(), torch.zeros_like(x, dtype=torch.float64)
    decisive = exact.w_in if exact.w_gate is None else exact.w_gate
    act = reference.activation_of(weights.activation)
    for tree in range(weights.trees):
        for level in range(weights.levels):
            nodes = path[:, tree, level]
            score = _scores(tokens, exact.w_in[tree], nodes)
            if exact.b_in is not None:
                score += exact.b_in[tree][nodes]
            decision = score if exact.w_gate is None else _scores(tokens, decisive[tree], nodes)
            value = act(score) if exact.w_gate is None else act(decision) * score
            total += value[:, None] * exact.w_out[tree][nodes]
            if level < weights.depth:
                wrong = path[:, tree, level + 1] != 2 * nodes + 1 + (decision > 0)
                margin = max(margin, float(decision[wrong].abs().max()) if wrong.any() else 0.0)
    assert margin < 1e-4, f"a path leaves the way of its scores by {margin}"
    rounding = 2e-2 if y.dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(y.double(), total, rtol=rounding, atol=rounding)
    few: Any = (exact.w_in, exact.b_in, exact.w_gate, exact.w_out, path[:SLOWLY])
    slow = reference.tree_ffn_along(x[:SLOWLY].float(), *few, activation=weights.activation)
    torch.testing.assert_close(y[:SLOWLY].float(), slow, rtol=rounding, atol=rounding)
    return float((y.double() - total).abs().max())


def _scores(tokens: Tensor, rows: Tensor, nodes: Tensor) -> Tensor:
    """Multiply each token with the row of its node in fp64."""
    return torch.einsum("bh,bh->b", tokens, rows[nodes].double())


def bytes_needed(weights: TreeWeights, x: Tensor, visits: Visits) -> int:
    """Count the bytes that a perfect kernel moves: each visited row once, tokens in, outputs out."""
    nodes = sum(int(visits.path[:, tree].unique().numel()) for tree in range(weights.trees))
    return nodes * weights.rows * weights.width * weights.w_in.element_size() + 2 * x.numel() * x.element_size()
