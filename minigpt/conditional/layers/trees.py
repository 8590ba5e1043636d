"""Parallel trees in which every node is a neuron (UltraFastBERT, Belcak and Wattenhofer, 2311.10770).

A token descends K trees of D+1 levels. Node n adds act(s_n) * w_out[n] with s_n = w_in[n].x + b_in[n], and the next
node is 2n+1+[s_n > 0]. With a gate (SwiGLU) the node adds act(g_n) * s_n * w_out[n] with g_n = w_gate[n].x, and the
sign of g_n decides. Training computes all nodes and masks those off the path, as the paper's code does; the decisions
themselves get no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from minigpt.conditional.base import (
    ConditionalFFN,
    Settings,
    check_common,
    check_depth,
    parameter,
    require,
    split_rows,
    with_bias,
)
from minigpt.conditional.kernels import ops
from minigpt.conditional.kernels.weights import TreeWeights
from minigpt.conditional.reference import activation_of

# Weights that one step of the descent gathers at most, so that memory does not grow with the batch.
_GATHERED = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSettings(Settings):
    """Settings of parallel trees of neurons.

    Attributes:
        depth: decisions on a path (D); a token visits D+1 neurons of each tree.
        trees: number of trees (K).
        input_bias: whether neurons have an input bias.
        output_bias: whether the layer adds a bias to its output, as a BERT's dense layer does; the paper has none.
        kind: name of the kind.
    """

    depth: int
    trees: int = 1
    input_bias: bool = True
    output_bias: bool = False
    kind: Literal["trees"] = "trees"

    def __post_init__(self) -> None:
        check_common(self)
        check_depth(self.depth)
        require(self.trees >= 1, f"trees={self.trees} must be at least 1.")

    @property
    def nodes(self) -> int:
        """Number of neurons of one tree (N)."""
        return int(2 ** (self.depth + 1) - 1)


def path_mask(positive: Tensor, depth: int) -> Tensor:
    """Return 1 at the nodes on each token's path and 0 elsewhere.

    Args:
        positive: [B, K, N], whether a node leads to the right.
        depth: decisions on a path.

    Returns:
        Booleans [B, K, N].
    """
    level = torch.ones_like(positive[..., :1])
    levels = [level]
    for index in range(depth):
        first = 2**index - 1
        right = positive[..., first : first + 2**index]
        level = torch.stack((level & ~right, level & right), dim=-1).flatten(-2)
        levels.append(level)
    return torch.cat(levels, dim=-1)


class Trees(ConditionalFFN):
    """K parallel trees of depth D whose nodes are neurons.

    New weights are uniform: inputs within 1/sqrt(H), outputs within 1/sqrt(K (D+1)), as in the paper's code.

    Attributes:
        w_in: [K, N, H].
        b_in: [K, N], or None.
        w_gate: [K, N, H], or None.
        w_out: [K, N, H].
        b_out: [H], or None.
    """

    settings: TreeSettings

    def __init__(self, settings: TreeSettings) -> None:
        super().__init__(settings)
        trees, nodes, hidden = settings.trees, settings.nodes, settings.hidden_size
        self.w_in = parameter(trees, nodes, hidden)
        self.b_in = parameter(trees, nodes) if settings.input_bias else None
        self.w_gate = parameter(trees, nodes, hidden) if settings.gated else None
        self.w_out = parameter(trees, nodes, hidden)
        self.b_out = parameter(hidden) if settings.output_bias else None
        self.reset()

    def _training(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], self.settings.trees, self.settings.nodes)
        scores = (x @ self.w_in.flatten(0, 1).T).view(shape)
        scores = scores if self.b_in is None else scores + self.b_in
        decisions = scores if self.w_gate is None else (x @ self.w_gate.flatten(0, 1).T).view(shape)
        act = activation_of(self.settings.activation)
        values = act(scores) if self.w_gate is None else act(decisions) * scores
        with torch.no_grad():
            mask = path_mask(decisions > 0, self.settings.depth)
        # Not a product with the mask: 0 * inf of a node off the path would be NaN.
        values = values.masked_fill(~mask, 0.0)
        return with_bias(values.flatten(1) @ self.w_out.flatten(0, 1), self.b_out)

    def _hard(self, x: Tensor) -> Tensor:
        size = max(1, _GATHERED // (self.settings.trees * self.settings.hidden_size))
        return with_bias(torch.cat([self._descend(part) for part in split_rows(x, size)]), self.b_out)

    def _prepare(self, tokens: torch.dtype) -> Callable[[Tensor], Tensor] | None:
        w_in, w_out = self.w_in.detach(), self.w_out.detach()
        gate, bias = (None if value is None else value.detach() for value in (self.w_gate, self.b_in))
        weights = TreeWeights(w_in, w_out, self.settings.depth, self.settings.activation, bias, gate)
        if ops.kernel_for(weights, tokens) == "torch":  # the plain form here takes all trees at once
            return None
        compute, b_out = ops.prepare(weights), self.b_out
        return compute if b_out is None else lambda x: compute(x) + b_out

    def _descend(self, x: Tensor) -> Tensor:
        """Sum the outputs of the nodes on each token's paths, level by level: [B, H]."""
        act, out = activation_of(self.settings.activation), torch.zeros_like(x)
        for nodes, scores, gates in self._levels(x):
            values = act(scores) if gates is None else act(gates) * scores
            out = out + torch.bmm(values.unsqueeze(1), _rows(self.w_out, nodes)).squeeze(1)
        return out

    def _levels(self, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Return for each level the rows of the visited nodes [B, K] in all trees' nodes, their scores and gates."""
        settings, column = self.settings, x.unsqueeze(-1)
        first = torch.arange(settings.trees, device=x.device) * settings.nodes
        node = torch.zeros(x.shape[0], settings.trees, dtype=torch.long, device=x.device)
        levels = []
        for _ in range(settings.depth + 1):
            rows = first + node
            scores = torch.bmm(_rows(self.w_in, rows), column).squeeze(-1)
            scores = scores if self.b_in is None else scores + self.b_in.flatten()[rows]
            gates = None if self.w_gate is None else torch.bmm(_rows(self.w_gate, rows), column).squeeze(-1)
            levels.append((rows, scores, gates))
            node = 2 * node + 1 + ((scores if gates is None else gates) > 0).long()
        return levels

    @torch.no_grad()
    def paths(self, x: Tensor) -> Tensor:
        """Return the nodes that tokens x [B, H] visit in each tree: [B, K, D+1]."""
        first = torch.arange(self.settings.trees, device=x.device) * self.settings.nodes
        return torch.stack([rows - first for rows, _, _ in self._levels(x)], dim=-1)

    def total_neurons(self) -> int:
        """Return K (2^(D+1) - 1)."""
        return self.settings.trees * self.settings.nodes

    def visited_neurons(self, x: Tensor | None = None) -> float:
        """Return K (D+1), which is the same for every token."""
        return float(self.settings.trees * (self.settings.depth + 1))

    def visited_weights(self, x: Tensor | None = None) -> float:
        """Return the weights of the visited neurons; their decisions need no others."""
        return self.visited_neurons() * self.settings.hidden_size * (3 if self.settings.gated else 2)


def _rows(weights: Tensor, rows: Tensor) -> Tensor:
    """Gather rows [B, K] of weights [K, N, H]: [B, K, H]."""
    return weights.flatten(0, 1)[rows]
