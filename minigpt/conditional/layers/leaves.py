"""Fast feedforward network with leaves (FFF, Belcak and Wattenhofer, 2308.14711).

A tree of D decisions leads a token to one of 2^D leaves, each a small feed-forward layer. Training mixes all leaves
with the products of c = sigmoid(w_node.x + b_node) and 1 - c along their paths; inference computes the one leaf that
the signs lead to. The output biases of the leaves count in both.

Three terms help training:

- hardening: h times the mean Bernoulli entropy of the decisions, which drives c to 0 or 1 (2308.14711, section 3);
- region leak: in training, each decision is swapped (c becomes 1 - c) with a probability, against regions with too
  little data;
- balance: alpha * 2^D * sum_i f_i P_i with f_i the share of tokens whose signs lead to leaf i and P_i the mean mixture
  weight of leaf i (2405.16836, after the Switch Transformer, 2101.03961, equations 4 to 6). It is alpha where all
  leaves have equal traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from minigpt.conditional.base import ConditionalFFN, Settings, check_common, check_depth, parameter, require
from minigpt.conditional.kernels.rows import most_tokens, prepare_layer
from minigpt.conditional.reference import activation_of

# The entropy's gradient is infinite at 0 and 1; the paper's code bounds probabilities by this number.
_CLAMP = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafSettings(Settings):
    """Settings of a tree of decisions with leaves.

    Attributes:
        depth: decisions on a path (D); there are 2^D leaves.
        leaf_width: neurons of a leaf (L).
        hardening: weight h of the decisions' entropy in the penalty.
        balance: weight alpha of the leaves' balance in the penalty.
        region_leak: probability that a decision is swapped in training.
        kind: name of the kind.
    """

    depth: int
    leaf_width: int
    hardening: float = 0.0
    balance: float = 0.0
    region_leak: float = 0.0
    kind: Literal["leaves"] = "leaves"

    def __post_init__(self) -> None:
        check_common(self)
        check_depth(self.depth)
        require(self.leaf_width >= 1, f"leaf_width={self.leaf_width} must be at least 1.")
        require(self.hardening >= 0, f"hardening={self.hardening} must not be negative.")
        require(self.balance >= 0, f"balance={self.balance} must not be negative.")
        require(0 <= self.region_leak <= 1, f"region_leak={self.region_leak} must be from 0 to 1.")

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return int(2**self.depth)


def mixture_of(right: Tensor, depth: int) -> Tensor:
    """Return the weight of each leaf from the probabilities of going right.

    Args:
        right: [B, 2^D - 1], probability of each decision.
        depth: the number D of decisions on a path.

    Returns:
        Weights [B, 2^D]; each row sums to 1.
    """
    mixture = torch.ones_like(right[:, :1]) if depth else right.new_ones(right.shape[0], 1)
    for index in range(depth):
        first = 2**index - 1
        level = right[:, first : first + 2**index]
        mixture = torch.stack((mixture * (1 - level), mixture * level), dim=-1).flatten(1)
    return mixture


def decision_entropy(right: Tensor) -> Tensor:
    """Return the mean Bernoulli entropy of decisions in nats; 0 if there are none."""
    if right.numel() == 0:
        return right.sum()
    bounded = right.float() if right.dtype in (torch.bfloat16, torch.float16) else right
    bounded = bounded.clamp(_CLAMP, 1 - _CLAMP)
    return -(bounded * bounded.log() + (1 - bounded) * (1 - bounded).log()).mean()


def balance_of(mixture: Tensor, leaf: Tensor) -> Tensor:
    """Return 2^D * sum_i f_i P_i: 1 if all leaves have equal traffic, up to 2^D if one leaf has it all.

    Args:
        mixture: [B, 2^D], weights of the leaves; the gradient flows through their means P.
        leaf: [B], the leaf that each token reaches; f counts them.
    """
    leaves = mixture.shape[1]
    share = torch.bincount(leaf, minlength=leaves).to(mixture.dtype) / max(1, len(leaf))
    return leaves * (share * mixture.mean(0)).sum()


class Leaves(ConditionalFFN):
    """Binary tree of D decisions whose 2^D leaves are small feed-forward layers.

    New weights are uniform: decisions and leaf inputs within 1/sqrt(H), leaf outputs within 1/sqrt(L), as in the
    paper's code.

    Attributes:
        w_node: [2^D - 1, H], decisions.
        b_node: [2^D - 1].
        w_in: [2^D, L, H].
        b_in: [2^D, L].
        w_gate: [2^D, L, H], or None.
        w_out: [2^D, L, H].
        b_out: [2^D, H].
    """

    settings: LeafSettings

    def __init__(self, settings: LeafSettings) -> None:
        super().__init__(settings)
        leaves, width, hidden = settings.leaves, settings.leaf_width, settings.hidden_size
        self.w_node = parameter(leaves - 1, hidden)
        self.b_node = parameter(leaves - 1)
        self.w_in = parameter(leaves, width, hidden)
        self.b_in = parameter(leaves, width)
        self.w_gate = parameter(leaves, width, hidden) if settings.gated else None
        self.w_out = parameter(leaves, width, hidden)
        self.b_out = parameter(leaves, hidden)
        self.reset()

    def _training(self, x: Tensor) -> Tensor:
        settings = self.settings
        scores = functional.linear(x, self.w_node, self.b_node)
        right = torch.sigmoid(scores)
        self._penalty = self._penalty_of(right)
        if settings.region_leak > 0:
            swapped = torch.rand_like(right) < settings.region_leak
            right = torch.where(swapped, 1 - right, right)
        mixture = mixture_of(right, settings.depth)
        values = self._values(x, self.w_in.flatten(0, 1), self.b_in.flatten(), self._gate_rows())
        values = values.view(-1, settings.leaves, settings.leaf_width) * mixture.unsqueeze(-1)
        return values.flatten(1) @ self.w_out.flatten(0, 1) + mixture @ self.b_out

    def _gate_rows(self) -> Tensor | None:
        """Return the gate weights of all leaves as one matrix."""
        return None if self.w_gate is None else self.w_gate.flatten(0, 1)

    def _values(self, x: Tensor, w_in: Tensor, b_in: Tensor, w_gate: Tensor | None) -> Tensor:
        """Return the values of neurons for tokens [B, H]: [B, neurons]."""
        act, scores = activation_of(self.settings.activation), functional.linear(x, w_in, b_in)
        return act(scores) if w_gate is None else act(x @ w_gate.T) * scores

    def _penalty_of(self, right: Tensor) -> Tensor:
        """Return the penalty of decisions, as they are without the region leak: at inference there is none."""
        settings, total = self.settings, right.new_zeros(())
        if settings.hardening > 0:
            total = total + settings.hardening * decision_entropy(right)
        if settings.balance > 0:
            mixture = mixture_of(right.float() if right.dtype == torch.bfloat16 else right, settings.depth)
            with torch.no_grad():
                leaf = mixture_of((right >= 0.5).float(), settings.depth).argmax(1)
            total = total + settings.balance * balance_of(mixture, leaf)
        return total

    def _hard(self, x: Tensor) -> Tensor:
        leaf = self.leaf_of(x)
        order = torch.argsort(leaf)
        present, counts = torch.unique(leaf, return_counts=True)
        # Tokens of one leaf are computed together, so that its weights are read once.
        groups = torch.split(x[order], counts.tolist())
        parts = [self._one_leaf(part, index) for part, index in zip(groups, present.tolist(), strict=False)]
        return torch.cat([x[:0], *parts])[torch.argsort(order)]

    def _kernel_tokens(self, x: Tensor) -> int | None:
        return most_tokens(x)

    def _prepare(self, tokens: torch.dtype) -> Callable[[Tensor], Tensor] | None:
        return prepare_layer(
            self,
            tokens,
            w_node=self.w_node,
            b_node=self.b_node,
            depth=self.settings.depth,
        )

    def _one_leaf(self, x: Tensor, leaf: int) -> Tensor:
        """Compute one leaf for tokens [B, H]."""
        gate = None if self.w_gate is None else self.w_gate[leaf]
        return self._values(x, self.w_in[leaf], self.b_in[leaf], gate) @ self.w_out[leaf] + self.b_out[leaf]

    @torch.no_grad()
    def leaf_of(self, x: Tensor) -> Tensor:
        """Return the leaf that tokens x [B, H] reach: [B], numbered from left to right."""
        node = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
        for _ in range(self.settings.depth):
            scores = torch.bmm(self.w_node[node].unsqueeze(1), x.unsqueeze(-1)).flatten() + self.b_node[node]
            node = 2 * node + 1 + (scores >= 0).long()
        return node - (self.settings.leaves - 1)

    def total_neurons(self) -> int:
        """Return 2^D L; decisions are no neurons."""
        return self.settings.leaves * self.settings.leaf_width

    def visited_neurons(self, x: Tensor | None = None) -> float:
        """Return L, which is the same for every token."""
        return float(self.settings.leaf_width)

    def visited_weights(self, x: Tensor | None = None) -> float:
        """Return the weights of D decisions and one leaf."""
        settings = self.settings
        neurons = settings.leaf_width * (3 if settings.gated else 2)
        return float((settings.depth + neurons) * settings.hidden_size)
