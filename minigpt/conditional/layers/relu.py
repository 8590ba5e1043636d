"""Dense layers with sparse values: ReLU and dReLU with an L1 penalty, or the k largest values.

ReLU with an L1 penalty on the neurons' values is the form of TwELL (2603.23198); dReLU, relu(gate) * relu(up), that of
TurboSparse (2406.05955). What a neuron adds is exactly zero where its value is zero, so that its row of the output
weights need not be read; where the gate is zero, neither need its row of the input weights. The k largest values work
with any activation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from minigpt.conditional.base import check_common, need_tokens, require, split_rows, with_bias
from minigpt.conditional.kernels.row_weights import OPEN
from minigpt.conditional.kernels.rows import most_tokens, plain_skips, prepare_layer
from minigpt.conditional.layers.dense import DenseFFN, DenseSettings
from minigpt.conditional.reference import ACTIVATIONS, hidden_values

# Weights that are gathered at a time, so that memory does not grow with the batch.
_GATHERED = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class ReluSettings(DenseSettings):
    """Settings of a layer with sparse values.

    Attributes:
        activation: "relu", "drelu" (with a gate), or any other with `top_k`.
        l1: weight of the mean absolute value of the neurons in the penalty.
        top_k: number of neurons of largest absolute value that count for a token; None for all.
        kind: name of the kind.
    """

    activation: str = "relu"
    l1: float = 0.0
    top_k: int | None = None
    kind: Literal["relu"] = "relu"

    def __post_init__(self) -> None:
        check_common(self, activations=(*ACTIVATIONS, "drelu"))
        require(self.neurons >= 1, f"neurons={self.neurons} must be at least 1.")
        require(self.l1 >= 0, f"l1={self.l1} must not be negative.")
        require(self.gated or self.activation != "drelu", "activation='drelu' needs gated=True; or choose 'relu'.")
        require(
            self.top_k is None or 1 <= self.top_k <= self.neurons,
            f"top_k={self.top_k} must be from 1 to the number of neurons, {self.neurons}.",
        )
        require(
            self.top_k is not None or self.activation in ("relu", "drelu"),
            f"activation={self.activation!r} is never zero, so that every neuron counts; set top_k or choose 'relu'.",
        )


class Relu(DenseFFN):
    """Dense layer of which a token needs the neurons whose value is not zero."""

    settings: ReluSettings

    def _training(self, x: Tensor) -> Tensor:
        values = self.values(x)
        self._penalty = self.settings.l1 * values.abs().mean() if self.settings.l1 > 0 else None
        return with_bias(values @ self.w_out, self.b_out)

    def values(self, x: Tensor) -> Tensor:
        """Return the values of all neurons for tokens [B, H], those that do not count as zeros: [B, N]."""
        return self._largest(hidden_values(x, self.w_in, self.b_in, self.w_gate, activation=self.settings.activation))

    def _largest(self, values: Tensor) -> Tensor:
        """Set all but the k values of largest size to zero."""
        if self.settings.top_k is None:
            return values
        index = values.detach().abs().topk(self.settings.top_k, dim=-1, sorted=False).indices
        return torch.zeros_like(values).scatter(-1, index, values.gather(-1, index))

    def _kernel_tokens(self, x: Tensor) -> int | None:
        return most_tokens(x)

    def _prepare(self, tokens: torch.dtype) -> Callable[[Tensor], Tensor] | None:
        return prepare_layer(
            self,
            tokens,
            gate_above=0.0 if self._gate_decides() else OPEN,
            value_above=0.0,
            top_k=self.settings.top_k or 0,
        )

    def _hard(self, x: Tensor) -> Tensor:
        if not plain_skips(x):  # together they need nearly all rows, and a dense product reads each once
            return with_bias(self.values(x) @ self.w_out, self.b_out)
        values = self._sparse_values(x) if self._gate_decides() else self.values(x)
        token, neuron = values.nonzero(as_tuple=True)
        starts = torch.searchsorted(token, torch.arange(x.shape[0], device=x.device))
        weights = values[token, neuron]
        out = functional.embedding_bag(neuron, self.w_out, starts, mode="sum", per_sample_weights=weights)
        return with_bias(out, self.b_out)

    def _gate_decides(self) -> bool:
        """Return whether a gate of zero makes the value zero."""
        return self.w_gate is not None and self.settings.activation in ("relu", "drelu")

    def _sparse_values(self, x: Tensor) -> Tensor:
        """Return what `values` does, reading the input weights only of neurons whose gate is open."""
        assert self.w_gate is not None
        gates = functional.relu(x @ self.w_gate.T)
        token, neuron = gates.nonzero(as_tuple=True)
        size = max(1, _GATHERED // self.settings.hidden_size)
        pairs = zip(split_rows(token, size), split_rows(neuron, size), strict=True)
        scores = torch.cat([x.new_zeros(0), *(self._scores(x, rows, columns) for rows, columns in pairs)])
        scores = functional.relu(scores) if self.settings.activation == "drelu" else scores
        values = torch.zeros_like(gates).index_put((token, neuron), gates[token, neuron] * scores)
        return self._largest(values)

    def _scores(self, x: Tensor, token: Tensor, neuron: Tensor) -> Tensor:
        """Return w_in.x + b_in of pairs of a token and a neuron: [pairs]."""
        scores = torch.bmm(self.w_in[neuron].unsqueeze(1), x[token].unsqueeze(-1)).flatten()
        return scores if self.b_in is None else scores + self.b_in[neuron]

    @torch.no_grad()
    def visited_neurons(self, x: Tensor | None = None) -> float:
        """Return the mean number of neurons whose value is not zero."""
        return float((self.values(need_tokens(x, "relu")) != 0).sum(-1).double().mean())

    @torch.no_grad()
    def visited_weights(self, x: Tensor | None = None) -> float:
        """Return the weights that a token reads.

        All rows that decide (the gate's, or the input's where there is no gate) are read, input rows where the gate is
        open, and output rows of visited neurons.
        """
        tokens, settings = need_tokens(x, "relu"), self.settings
        rows: float = settings.neurons + self.visited_neurons(tokens)
        if self._gate_decides():
            assert self.w_gate is not None
            rows += float((tokens @ self.w_gate.T > 0).sum(-1).double().mean())
        elif settings.gated:
            rows += settings.neurons
        return rows * settings.hidden_size
