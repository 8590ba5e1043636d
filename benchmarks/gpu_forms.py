"""Forms of a feed-forward layer for `conditional_gpu.py`: dense at its best, and conditional ones of its weights.

Thresholds are quantiles of what each layer reads in decoding, after the layers before it became conditional. Random
gates are open for half of all neurons, so that `relu:SHARE` shuts all but twice the share by gates of zero. Trees take
the neurons as they come. None of these forms keeps what a model knows: they are here for their speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.gpu_decoder import Ffn, Layer
from minigpt.conditional import reference
from minigpt.conditional.base import ConditionalFFN
from minigpt.conditional.conversions import count_of, tree_depth
from minigpt.conditional.kernels.row_weights import OPEN
from minigpt.conditional.layers import (
    AnySettings,
    Relu,
    ReluSettings,
    Threshold,
    ThresholdSettings,
    Trees,
    TreeSettings,
    build,
)
from minigpt.conditional.layers.threshold import quantile_of

# Where the outputs of kernels may be, in the size of the exact ones: rounding to bf16.
LARGEST_ERROR = 0.03
# A gate this near to its threshold, in the size of the threshold, may be on either side of it: bf16 rounds it, twice.
_NEAR = 2.0**-7
# Most tokens that the compiled layer is compiled for.
_MOST = 16


def gated(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Compute the dense layer as models do: three products."""
    return functional.linear(functional.silu(functional.linear(x, gate)) * functional.linear(x, up), down)


def dense(layer: Layer, _x: Tensor, _share: float) -> Ffn:
    """Return the dense layer."""
    return lambda x: gated(x, layer.gate, layer.up, layer.down)


def fused(layer: Layer, _x: Tensor, _share: float) -> Ffn:
    """Return the dense layer with gate and input in one product."""
    both = torch.cat((layer.gate, layer.up))

    def compute(x: Tensor) -> Tensor:
        gate, up = functional.linear(x, both).chunk(2, -1)
        return functional.linear(functional.silu(gate) * up, layer.down)

    return compute


_compiled = torch.compile(gated, dynamic=False)


def compiled(layer: Layer, _x: Tensor, _share: float) -> Ffn:
    """Return the dense layer as the compiler makes it."""
    # Not for the many tokens of the calibration, which would be compiled for, too.
    return lambda x: (gated if len(x) > _MOST else _compiled)(x, layer.gate, layer.up, layer.down)


def free(_layer: Layer, _x: Tensor, _share: float) -> Ffn:
    """Return what no feed-forward layer adds: the limit."""
    return torch.zeros_like


def of_weights(settings: AnySettings, weights: Mapping[str, Tensor]) -> ConditionalFFN:
    """Return a layer of these very weights, not copied; none are drawn."""
    with torch.device("meta"):
        layer = build(settings)
    for name, _ in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(weights[name], requires_grad=False))
    return layer.eval()


def threshold(layer: Layer, x: Tensor, share: float) -> Ffn:
    """Return a layer of which tokens like x visit this share; all of it is the control."""
    gates = functional.silu(functional.linear(x, layer.gate).float())
    border = quantile_of(gates, 1 - share) if share < 1 else OPEN
    neurons, hidden = layer.gate.shape
    settings = ThresholdSettings(hidden_size=hidden, neurons=neurons, activation="silu", gated=True, t_act=border)
    return of_weights(settings, {"w_in": layer.up, "w_gate": layer.gate, "w_out": layer.rows})


def relu(layer: Layer, _x: Tensor, share: float) -> Ffn:
    """Return a layer with ReLU in which gates of zero shut all but twice the share, and random ones half of the rest.

    Raises:
        ValueError: the share is above a half.
    """
    if share > 0.5:
        raise ValueError("random gates of ReLU are open for half of the neurons at most")
    neurons, hidden = layer.gate.shape
    gate = layer.gate.clone()
    gate[torch.randperm(neurons, device=gate.device)[count_of(neurons, 2 * share) :]] = 0
    settings = ReluSettings(hidden_size=hidden, neurons=neurons, gated=True)
    return of_weights(settings, {"w_in": layer.up, "w_gate": gate, "w_out": layer.rows})


def topk(layer: Layer, _x: Tensor, share: float) -> Ffn:
    """Return a layer in which a share of the neurons counts, those of largest value."""
    neurons, hidden = layer.gate.shape
    settings = ReluSettings(
        hidden_size=hidden, neurons=neurons, gated=True, activation="silu", top_k=count_of(neurons, share)
    )
    return of_weights(settings, {"w_in": layer.up, "w_gate": layer.gate, "w_out": layer.rows})


def trees(layer: Layer, _x: Tensor, share: float) -> Ffn:
    """Return parallel trees of the layer's neurons, of which a token visits about this share."""
    neurons, hidden = layer.gate.shape
    depth = tree_depth(share)
    nodes = 2 ** (depth + 1) - 1
    count = max(1, min(count_of(neurons, share) // (depth + 1), neurons // nodes))
    settings = TreeSettings(
        hidden_size=hidden, depth=depth, trees=count, activation="silu", gated=True, input_bias=False
    )
    rows = {"w_in": layer.up, "w_gate": layer.gate, "w_out": layer.rows}
    return of_weights(settings, {name: row[: count * nodes].view(count, nodes, hidden) for name, row in rows.items()})


# Makes a form of a layer, what it reads, and a share.
FORMS: Mapping[str, Callable[[Layer, Tensor, float], Ffn]] = {
    "dense": dense,
    "fused": fused,
    "compiled": compiled,
    "threshold": threshold,
    "relu": relu,
    "topk": topk,
    "trees": trees,
    "free": free,
}


def exact(ffn: Ffn, layer: Layer, x: Tensor) -> Tensor:
    """Compute the plain reference of a form in double precision."""
    if ffn is torch.zeros_like:
        return torch.zeros_like(x).double()
    if not isinstance(ffn, ConditionalFFN):
        weights = (layer.up.double(), None, layer.gate.double(), layer.rows.double())
        return reference.dense_ffn(x.double(), *weights, activation="silu")
    weight = {name: value.double() for name, value in ffn.named_parameters()}
    rows = (weight["w_in"], None, weight["w_gate"], weight["w_out"])
    return _exact(ffn, x.double(), rows)


def _exact(ffn: ConditionalFFN, x: Tensor, rows: tuple[Any, ...]) -> Tensor:
    """Choose the reference of a kind."""
    name = ffn.settings.activation
    if isinstance(ffn, Trees):
        return reference.tree_ffn(x, *rows, depth=ffn.settings.depth, activation=name)
    if isinstance(ffn, Threshold):
        none = {"t_in": 0.0, "t_gate": 0.0, "t_out": 0.0}
        return reference.threshold_ffn(x, *rows, **none, activation=name, t_act=ffn.settings.t_act)
    if isinstance(ffn, Relu) and ffn.settings.top_k:
        return reference.topk_ffn(x, *rows, k=ffn.settings.top_k, activation=name)
    return reference.dense_ffn(x, *rows, activation=name)


def unexplained(off: Tensor, ffn: Ffn, x: Tensor) -> Tensor:
    """Return the part of an error [B, H] that is not of the outputs of neurons whose gates are at the threshold.

    Rounding opens or shuts such gates, so that each token's error may hold any multiple of what they add. Those
    directions are few beside H and are taken out of it by least squares.
    """
    if not isinstance(ffn, Threshold) or ffn.settings.t_act <= 0:
        return off
    weight = {name: value.double() for name, value in ffn.named_parameters()}
    gates = functional.silu(functional.linear(x.double(), weight["w_gate"]))
    near = (gates.abs() / ffn.settings.t_act - 1).abs() <= _NEAR
    left = off.clone()
    for token, flags in enumerate(near):
        if flags.any():
            basis = torch.linalg.qr(weight["w_out"][flags].T)[0]
            left[token] -= basis @ (basis.T @ off[token])
    return left


def error_of(ffn: Ffn, layer: Layer, x: Tensor, meant: Ffn | None = None) -> float:
    """Return how far a form is from its reference, in the reference's size, beyond what gates at a threshold explain.

    Args:
        ffn: the form.
        layer: its weights.
        x: tokens.
        meant: form whose reference it is compared with, its own by default.

    Raises:
        ValueError: it is too far.
    """
    right, y = exact(meant or ffn, layer, x), ffn(x).double()
    off = float(unexplained(y - right, meant or ffn, x).norm())
    error = off / float(right.norm().clamp_min(1e-30)) if right.any() else off
    if not error <= LARGEST_ERROR:
        raise ValueError(f"its output is off by {error:.3f} of the reference")
    return error


def visits_of(ffn: Ffn, layer: Layer, x: Tensor) -> tuple[float, float]:
    """Return the share of neurons that a token visits, and that of the weights that all tokens together need."""
    if ffn is torch.zeros_like:
        return 0.0, 0.0
    if not isinstance(ffn, ConditionalFFN):
        return 1.0, 1.0
    neurons, hidden = layer.gate.shape
    visited = ffn.visited_neurons(x) / neurons
    if not isinstance(ffn, (Relu, Threshold)):
        return visited, min(1.0, len(x) * ffn.visited_weights(x) / (3 * neurons * hidden))
    needed = float((ffn.values(x) != 0).any(0).double().mean())
    inputs = 1.0 if isinstance(ffn, Relu) and ffn.settings.top_k else needed
    return visited, (1 + inputs + needed) / 3
