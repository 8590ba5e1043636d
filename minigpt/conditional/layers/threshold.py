"""Training-free thresholds on what the projections of a dense layer read (TEAL, 2408.14690).

A gate has a threshold of its own for what its activation gives out (CATS, 2404.08763): the input row of a neuron whose
gate is nearly shut is not read.

Each projection ignores inputs whose absolute value is at most a threshold of its own (equation 2), so that the columns
of its weight that belong to them need not be read. A threshold is the quantile of the absolute inputs on calibration
text (equation 3): the share of inputs that it silences. The greedy split of a layer's share between its projections is
algorithm 1 of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from minigpt.conditional.base import (
    DenseWeights,
    check_common,
    need_tokens,
    require,
    with_bias,
)
from minigpt.conditional.kernels.rows import most_tokens, plain_skips, prepare_layer
from minigpt.conditional.layers.dense import DenseFFN, DenseSettings
from minigpt.conditional.reference import activation_of

Projection = Literal["in", "gate", "out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdSettings(DenseSettings):
    """Settings of a dense layer with thresholds.

    Attributes:
        t_in: threshold of what `w_in` reads.
        t_gate: threshold of what `w_gate` reads.
        t_out: threshold of what `w_out` reads: the values of the neurons.
        t_act: threshold of what the activation makes of a gate: up to it, a neuron counts as zero and its input row
            need not be read (CATS, 2404.08763, equation 4); -1 for none.
        kind: name of the kind.
    """

    t_in: float = 0.0
    t_gate: float = 0.0
    t_out: float = 0.0
    t_act: float = -1.0
    kind: Literal["threshold"] = "threshold"

    def __post_init__(self) -> None:
        check_common(self)
        require(self.neurons >= 1, f"neurons={self.neurons} must be at least 1.")
        for name in ("t_in", "t_gate", "t_out"):
            value = getattr(self, name)
            require(0 <= value < float("inf"), f"{name}={value} must be a number from 0 up.")
        require(-1 <= self.t_act < float("inf"), f"t_act={self.t_act} must be a number from 0 up, or -1.")
        require(self.gated or self.t_act < 0, "t_act needs gated=True; leave it out.")

    @property
    def reads_columns(self) -> bool:
        """True if tokens silence columns of the input matrices; else they read rows."""
        return self.t_in > 0 or self.t_gate > 0


class Threshold(DenseFFN):
    """Dense layer whose projections read only inputs above a threshold.

    Where a token reads columns of the input matrices, these lie in memory by column (their transposes are contiguous).
    """

    settings: ThresholdSettings

    def _input_weights(self, neurons: int, hidden: int) -> torch.nn.Parameter:
        if not self.settings.reads_columns:
            return super()._input_weights(neurons, hidden)
        return torch.nn.Parameter(torch.empty(hidden, neurons).T)

    def _training(self, x: Tensor) -> Tensor:
        out = _above(self.values(x), self.settings.t_out) @ self.w_out
        return with_bias(out, self.b_out)

    def values(self, x: Tensor) -> Tensor:
        """Return the values of all neurons for tokens [B, H], before their own threshold: [B, N]."""
        settings, act = self.settings, activation_of(self.settings.activation)
        scores = functional.linear(_above(x, settings.t_in), self.w_in, self.b_in)
        if self.w_gate is None:
            return act(scores)
        return _above(act(_above(x, settings.t_gate) @ self.w_gate.T), settings.t_act) * scores

    def _kernel_tokens(self, x: Tensor) -> int | None:
        return most_tokens(x)

    def _prepare(self, tokens: torch.dtype) -> Callable[[Tensor], Tensor] | None:
        if self.settings.reads_columns:
            return None
        return prepare_layer(
            self,
            tokens,
            gate_above=self.settings.t_act,
            value_above=self.settings.t_out,
        )

    def _hard(self, x: Tensor) -> Tensor:
        if not plain_skips(x):  # together they need nearly all weights, and a dense product reads each once
            return self._training(x)
        settings, act = self.settings, activation_of(self.settings.activation)
        scores = _read(x, self.w_in.T, settings.t_in)
        scores = scores if self.b_in is None else scores + self.b_in
        gates = None if self.w_gate is None else _read(x, self.w_gate.T, settings.t_gate)
        values = act(scores) if gates is None else _above(act(gates), settings.t_act) * scores
        out = _read(values, self.w_out, settings.t_out)
        return with_bias(out, self.b_out)

    @torch.no_grad()
    def visited_neurons(self, x: Tensor | None = None) -> float:
        """Return the mean number of neurons whose value is above the threshold of the output weights."""
        return _count(self.values(need_tokens(x, "threshold")), self.settings.t_out)

    @torch.no_grad()
    def visited_weights(self, x: Tensor | None = None) -> float:
        """Return the columns and rows that a token reads, in weights."""
        tokens, settings = need_tokens(x, "threshold"), self.settings
        columns = _count(tokens, settings.t_in) * self._open_share(tokens)
        columns += _count(tokens, settings.t_gate) if settings.gated else 0.0
        return columns * settings.neurons + self.visited_neurons(tokens) * settings.hidden_size

    def _open_share(self, x: Tensor) -> float:
        """Return the share of neurons whose gate is above its threshold, so that their input row is read."""
        if self.w_gate is None or self.settings.t_act < 0:
            return 1.0
        act = activation_of(self.settings.activation)
        gates = act(_above(x, self.settings.t_gate) @ self.w_gate.T)
        return _count(gates, self.settings.t_act) / self.settings.neurons


def _above(values: Tensor, threshold: float) -> Tensor:
    """Set entries of absolute value up to the threshold to zero."""
    return torch.where(values.abs() > threshold, values, torch.zeros_like(values))


def _count(values: Tensor, threshold: float) -> float:
    """Return how many entries of a row are above a threshold, as a mean over rows."""
    return float((values.abs() > threshold).sum(-1).double().mean().item())


def _read(values: Tensor, rows: Tensor, threshold: float) -> Tensor:
    """Return `values @ rows`, reading only the rows whose value is above the threshold."""
    token, index = (values.detach().abs() > threshold).nonzero(as_tuple=True)
    starts = torch.searchsorted(token, torch.arange(values.shape[0], device=values.device))
    return functional.embedding_bag(index, rows, starts, mode="sum", per_sample_weights=values[token, index])


def quantile_of(values: Tensor, share: float) -> float:
    """Return the threshold at or below which a share of the absolute values lies: t = inf{t: P(|v| <= t) >= share}.

    Sorting replaces `torch.quantile`, which refuses large inputs and interpolates.
    """
    count = round(share * values.numel())
    sizes = values.detach().abs().flatten()
    return 0.0 if count == 0 else float(sizes.kthvalue(count).values)


def thresholds_for(weights: DenseWeights, x: Tensor, shares: Mapping[Projection, float]) -> tuple[float, float, float]:
    """Return t_in, t_gate and t_out that silence given shares of each projection's inputs on calibration tokens.

    The values of the neurons are taken with the thresholds of the inputs in place, so that the share holds in use.

    Args:
        weights: the dense layer.
        x: calibration inputs [B, H] of this layer.
        shares: silenced share of the inputs of "in", "gate" and "out", each from 0 to 1.
    """
    t_in, t_gate = quantile_of(x, shares["in"]), quantile_of(x, shares.get("gate", 0.0))
    act, scores = activation_of(weights.activation), functional.linear(_above(x, t_in), weights.w_in, weights.b_in)
    if weights.w_gate is None:
        return t_in, 0.0, quantile_of(act(scores), shares["out"])
    values = act(_above(x, t_gate) @ weights.w_gate.T) * scores
    return t_in, t_gate, quantile_of(values, shares["out"])


def threshold_layer(weights: DenseWeights, x: Tensor, shares: Mapping[Projection, float]) -> Threshold:
    """Return a dense layer with thresholds from calibration tokens x [B, H]; arguments as of `thresholds_for`."""
    t_in, t_gate, t_out = thresholds_for(weights, x, shares)
    return _copied(weights, x, t_in=t_in, t_gate=t_gate, t_out=t_out)


def _copied(
    weights: DenseWeights,
    x: Tensor,
    *,
    t_in: float = 0.0,
    t_gate: float = 0.0,
    t_out: float = 0.0,
    t_act: float = -1.0,
) -> Threshold:
    """Return a layer with the weights of a dense one and these thresholds, where x is and in its type."""
    settings = ThresholdSettings(
        hidden_size=weights.hidden_size,
        activation=weights.activation,
        gated=weights.w_gate is not None,
        neurons=weights.neurons,
        input_bias=weights.b_in is not None,
        output_bias=weights.b_out is not None,
        t_in=t_in,
        t_gate=t_gate,
        t_out=t_out,
        t_act=t_act,
    )
    layer = Threshold(settings).to(x.device, x.dtype)
    with torch.no_grad():
        for name, value in layer.named_parameters():
            value.copy_(getattr(weights, name))
    return layer


def greedy_shares(weights: DenseWeights, x: Tensor, share: float, *, step: float = 0.05) -> dict[Projection, float]:
    """Split a layer's share between its projections so that the error of its output stays small (algorithm 1).

    In each step the projection whose share can grow at the least error of the layer's output grows. All projections of
    a dense layer have the same number of weights, so that the layer's share is the mean of theirs.

    Args:
        weights: the dense layer.
        x: calibration inputs [B, H] of this layer.
        share: mean share to silence, from 0 to 1.
        step: growth of one projection's share in one step.
    """
    names: tuple[Projection, ...] = ("in", "gate", "out") if weights.w_gate is not None else ("in", "out")
    shares: dict[Projection, float] = dict.fromkeys(names, 0.0)
    exact = weights.forward(x)
    while sum(shares.values()) < share * len(names) - 1e-9:
        rest = share * len(names) - sum(shares.values())
        grown = [{**shares, name: min(1.0, shares[name] + min(step, rest))} for name in names if shares[name] < 1.0]
        errors = [float((threshold_layer(weights, x, trial)(x) - exact).norm()) for trial in grown]
        shares = grown[errors.index(min(errors))]
    return shares


def gate_threshold_layer(weights: DenseWeights, x: Tensor, visited: float) -> Threshold:
    """Return a dense layer of which tokens read a share of the neurons, those whose gate is open widest (CATS).

    The threshold is the quantile of the activated gates on calibration tokens x [B, H] (2404.08763, section 4); a layer
    without a gate gets a threshold on its values.

    Args:
        weights: the dense layer.
        x: calibration inputs of this layer.
        visited: share of the neurons that a token is to visit.
    """
    act, gated = activation_of(weights.activation), weights.w_gate is not None
    scores = functional.linear(x, weights.w_in, weights.b_in) if weights.w_gate is None else x @ weights.w_gate.T
    border = quantile_of(act(scores), 1 - visited)
    return _copied(weights, x, t_act=border if gated else -1.0, t_out=0.0 if gated else border)
