"""Small conditional layers of every kind, and their plain references."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from minigpt.conditional import reference
from minigpt.conditional.base import ConditionalFFN
from minigpt.conditional.layers import (
    AnySettings,
    LeafSettings,
    ReluSettings,
    ThresholdSettings,
    TreeSettings,
    build,
)

HIDDEN = 6
CASES: Mapping[str, AnySettings] = {
    "tree of depth 0": TreeSettings(hidden_size=HIDDEN, depth=0),
    "trees": TreeSettings(hidden_size=HIDDEN, depth=3, trees=2),
    "trees without bias": TreeSettings(hidden_size=HIDDEN, depth=2, trees=3, input_bias=False, output_bias=True),
    "gated trees": TreeSettings(hidden_size=HIDDEN, depth=2, trees=2, activation="silu", gated=True),
    "gated trees without bias": TreeSettings(
        hidden_size=HIDDEN, depth=2, activation="silu", gated=True, input_bias=False
    ),
    "leaf of depth 0": LeafSettings(hidden_size=HIDDEN, depth=0, leaf_width=5),
    "leaves": LeafSettings(hidden_size=HIDDEN, depth=3, leaf_width=2),
    "gated leaves": LeafSettings(hidden_size=HIDDEN, depth=2, leaf_width=3, activation="silu", gated=True),
    "relu": ReluSettings(hidden_size=HIDDEN, neurons=9, input_bias=True, output_bias=True),
    "gated relu": ReluSettings(hidden_size=HIDDEN, neurons=9, gated=True),
    "drelu": ReluSettings(hidden_size=HIDDEN, neurons=9, gated=True, activation="drelu", input_bias=True),
    "top-k": ReluSettings(hidden_size=HIDDEN, neurons=9, gated=True, activation="silu", top_k=3),
    "top-k of relu": ReluSettings(hidden_size=HIDDEN, neurons=9, gated=True, top_k=2),
    "threshold": ThresholdSettings(hidden_size=HIDDEN, neurons=9, t_in=0.4, t_out=0.05, input_bias=True),
    "gated threshold": ThresholdSettings(
        hidden_size=HIDDEN, neurons=9, activation="silu", gated=True, t_in=0.4, t_gate=0.3, t_out=0.02, output_bias=True
    ),
    "gates with a threshold": ThresholdSettings(
        hidden_size=HIDDEN, neurons=9, activation="silu", gated=True, t_act=0.1, t_out=0.01, input_bias=True
    ),
}


def layer_of(case: str, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> ConditionalFFN:
    """A layer of a case with random weights large enough that every path is taken."""
    torch.manual_seed(seed)
    layer = build(CASES[case]).to(dtype)
    layer.reset(torch.Generator().manual_seed(seed))
    return layer


def tokens(count: int = 12, *, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random tokens [count, HIDDEN]."""
    return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _tree(p: Callable[[str], Tensor | None], settings: TreeSettings, x: Tensor) -> Tensor:
    depth, name = settings.depth, settings.activation
    return reference.tree_ffn(x, p("w_in"), p("b_in"), p("w_gate"), p("w_out"), depth=depth, activation=name)


def _leaf(p: Callable[[str], Tensor | None], settings: LeafSettings, x: Tensor) -> Tensor:
    names = ("w_node", "b_node", "w_in", "b_in", "w_gate", "w_out", "b_out")
    return reference.leaf_ffn(x, *map(p, names), depth=settings.depth, activation=settings.activation)


def _relu(p: Callable[[str], Tensor | None], settings: ReluSettings, x: Tensor) -> Tensor:
    names, name = ("w_in", "b_in", "w_gate", "w_out"), settings.activation
    if settings.top_k is None:
        return reference.dense_ffn(x, *map(p, names), activation=name)
    return reference.topk_ffn(x, *map(p, names), k=settings.top_k, activation=name)


def _threshold(p: Callable[[str], Tensor | None], settings: ThresholdSettings, x: Tensor) -> Tensor:
    limits = {name: getattr(settings, name) for name in ("t_in", "t_gate", "t_out", "t_act")}
    names = ("w_in", "b_in", "w_gate", "w_out")
    return reference.threshold_ffn(x, *map(p, names), **limits, activation=settings.activation)


def plain(layer: ConditionalFFN, x: Tensor) -> Tensor:
    """The hard form of a layer by its plain reference."""
    parameters = dict(layer.named_parameters())
    function = {"trees": _tree, "leaves": _leaf, "relu": _relu, "threshold": _threshold}[layer.settings.kind]
    out = function(parameters.get, layer.settings, x)
    bias = None if layer.settings.kind == "leaves" else parameters.get("b_out")
    return out if bias is None else out + bias
