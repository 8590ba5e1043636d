"""Conditional layers from a trained dense layer and its inputs on calibration text, before any training.

A neuron counts for a token by the squared size of what it adds to the output, v^2 |w_out|^2 with v its value: its
energy. Trees and leaves take over neurons of the dense layer as they are, those of most energy for the tokens that
pass; what is left out on average goes into an output bias. Everything here is a function of its arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from minigpt.conditional.base import ConditionalFFN, DenseWeights
from minigpt.conditional.layers.leaves import LeafSettings, Leaves
from minigpt.conditional.layers.relu import Relu, ReluSettings
from minigpt.conditional.layers.trees import Trees, TreeSettings
from minigpt.conditional.reference import hidden_values
from minigpt.errors import ConfigError

# Ridge of the small regressions here, as a share of the mean diagonal of their Gram matrix.
_RIDGE = 1e-3


def to_trees(weights: DenseWeights, x: Tensor, *, depth: int, trees: int) -> Trees:
    """Build trees of neurons from a dense layer, greedily from the roots down.

    A node takes the neuron with the most energy on the tokens that reach it, weighted with 4 p (1 - p) where p is the
    share of them that it sends to the right, so that both sides get tokens; on the last level only the energy counts.
    Roots of all trees come first, then the next level. Where tokens have met a neuron before, its energy counts against
    it.

    Args:
        weights: the dense layer.
        x: calibration inputs [B, H] of this layer.
        depth: decisions on a path.
        trees: number of trees.

    Raises:
        ConfigError: a token would visit more neurons than there are, or there are no tokens.
    """
    _check_tokens(x)
    visited = trees * (depth + 1)
    if visited > weights.neurons:
        raise ConfigError(
            f"{trees} trees of depth {depth} visit {visited} neurons and the layer has {weights.neurons}; "
            "take fewer trees or a smaller depth."
        )
    settings = TreeSettings(
        hidden_size=weights.hidden_size,
        activation=weights.activation,
        gated=weights.w_gate is not None,
        depth=depth,
        trees=trees,
        input_bias=weights.b_in is not None,
        output_bias=True,
    )
    layer = Trees(settings).to(x.device, x.dtype)
    with torch.no_grad():
        places = _grow(_energy(weights, x), _decisions(weights, x) > 0, trees, depth)
        _copy_neurons(layer, weights, places)
        bias = layer.get_parameter("b_out").zero_()
        bias.copy_((weights.forward(x) - layer.hard_forward(x)).mean(0))
    return layer


def _grow(gain: Tensor, right: Tensor, trees: int, depth: int) -> Tensor:
    """Return the neurons of the nodes of all trees: [K, N]. All roots come first, then the next level.

    Args:
        gain: energy of each neuron for each token [B, N]; it is changed, and becomes negative where a token has used
            the neuron, because to add it again would be an error of the same size.
        right: whether a neuron sends a token to the right [B, N].
        trees: number of trees.
        depth: decisions on a path.
    """
    count, everything = 2 ** (depth + 1) - 1, torch.arange(len(gain), device=gain.device)
    nodes = torch.zeros(trees, count, dtype=torch.long, device=gain.device)
    reached = [{0: everything} for _ in range(trees)]
    for node in range(count):
        last = 2 * node + 2 >= count
        for tree in range(trees):
            rows = reached[tree].pop(node)
            nodes[tree, node] = neuron = _best_neuron(gain[rows], None if last else right[rows])
            gain[rows, neuron] = -gain[rows, neuron].abs()
            if not last:
                goes = right[rows, neuron]
                reached[tree][2 * node + 1] = _or_all(rows[~goes], rows)
                reached[tree][2 * node + 2] = _or_all(rows[goes], rows)
    return nodes


def _best_neuron(gain: Tensor, right: Tensor | None) -> Tensor:
    """Return the neuron of most gain, weighted with how evenly it divides the tokens if it is to divide them."""
    sums = gain.sum(0)
    if right is None:
        return sums.argmax()
    share = right.to(gain.dtype).mean(0)
    # A neuron that sends all tokens to one side comes after those that do not, but before none at all.
    weight = 4 * share * (1 - share) + 1e-6
    return torch.where(sums > 0, sums * weight, sums).argmax()


def _or_all(rows: Tensor, parent: Tensor) -> Tensor:
    """Return the tokens of a side, or its parent's if there are none, for tokens that may come there later."""
    return rows if len(rows) else parent


def to_leaves(
    weights: DenseWeights,
    x: Tensor,
    *,
    depth: int,
    leaf_width: int,
    sharpness: float = 16.0,
    hardening: float = 0.0,
    balance: float = 0.0,
    region_leak: float = 0.0,
    seed: int = 0,
) -> Leaves:
    """Build a tree with leaves from a dense layer by splitting the calibration tokens in halves.

    A node divides its tokens into two halves whose neurons do most different things (balanced 2-means on the principal
    components of what neurons add), predicted from the input by ridge regression; its bias is the median.
    A leaf takes the neurons with the most energy on its tokens; its output weights and bias are refitted to the dense
    layer's output by ridge regression toward the neurons' own output weights.

    Args:
        weights: the dense layer.
        x: calibration inputs [B, H] of this layer.
        depth: decisions on a path.
        leaf_width: neurons of a leaf.
        sharpness: standard deviation of a decision's logits on its tokens; larger ones make the mixture harder, so that
            training fits what inference computes.
        hardening: see `LeafSettings`.
        balance: see `LeafSettings`.
        region_leak: see `LeafSettings`.
        seed: seed of the search for halves.

    Raises:
        ConfigError: a leaf would have more neurons than the layer, or there are no tokens.
    """
    _check_tokens(x)
    if leaf_width > weights.neurons:
        raise ConfigError(f"leaf_width={leaf_width} is more than the layer's {weights.neurons} neurons; take fewer.")
    settings = LeafSettings(
        hidden_size=weights.hidden_size,
        activation=weights.activation,
        gated=weights.w_gate is not None,
        depth=depth,
        leaf_width=leaf_width,
        hardening=hardening,
        balance=balance,
        region_leak=region_leak,
    )
    layer = Leaves(settings).to(x.device, x.dtype)
    with torch.no_grad():
        energy, groups = _energy(weights, x), {0: torch.arange(len(x), device=x.device)}
        signed = _values(weights, x) * weights.w_out.norm(dim=1)
        for node in range(settings.leaves - 1):
            rows = groups[node]
            layer.w_node[node], layer.b_node[node] = _halving(x[rows], signed[rows], sharpness, seed)
            goes = x[rows] @ layer.w_node[node] + layer.b_node[node] >= 0
            groups[2 * node + 1], groups[2 * node + 2] = _or_all(rows[~goes], rows), _or_all(rows[goes], rows)
        leaves = [groups[leaf + settings.leaves - 1] for leaf in range(settings.leaves)]
        places = torch.stack([energy[rows].sum(0).topk(leaf_width).indices for rows in leaves])
        _copy_neurons(layer, weights, places)
        for leaf, rows in enumerate(leaves):
            values = _values(weights, x[rows])[:, places[leaf]]
            layer.w_out[leaf], layer.b_out[leaf] = _refit(values, weights.forward(x[rows]), layer.w_out[leaf])
    return layer


def _halving(x: Tensor, signed: Tensor, sharpness: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a decision that divides tokens in halves along what their neurons do.

    Args:
        x: inputs [B, H].
        signed: signed size of what each neuron adds [B, N].
        sharpness: standard deviation of the logits.
        seed: seed of the search.
    """
    target, inputs = _halving_scores(_components(signed - signed.mean(0), seed), seed), x - x.mean(0)
    gram = inputs.T @ inputs
    weight = torch.linalg.solve(_ridged(gram), inputs.T @ (target - target.mean()))
    scores = x @ weight
    spread = scores.std(correction=0)
    if not spread > 0:  # one token, or all alike: everything goes to the right
        return torch.zeros_like(weight), torch.zeros_like(spread)
    return weight * sharpness / spread, -_middle(scores) * sharpness / spread


def _middle(scores: Tensor) -> Tensor:
    """Return the number with half of the scores below it."""
    ordered = scores.sort().values
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _components(centred: Tensor, seed: int, *, count: int = 8, rounds: int = 8) -> Tensor:
    """Return the first principal components of centred rows [B, N]: [B, count], by subspace iteration."""
    count = min(count, *centred.shape)
    basis = torch.randn(centred.shape[1], count, generator=torch.Generator().manual_seed(seed)).to(centred)
    for _ in range(rounds):
        basis = torch.linalg.qr(centred.T @ (centred @ basis)).Q
    return centred @ basis


def _halving_scores(points: Tensor, seed: int, *, trials: int = 32, rounds: int = 6) -> Tensor:
    """Return scores of points [B, q] whose median divides them in two compact halves of one size: [B].

    This is 2-means with clusters of equal size: points are ordered along the line between the two means, cut in the
    middle, and the means are taken again. Of several starts the one with the most distant means wins, which for equal
    sizes is the one with the least variance inside of the halves.
    """
    random = torch.randn(trials, points.shape[1], generator=torch.Generator().manual_seed(seed)).to(points)
    directions = torch.cat([torch.eye(points.shape[1]).to(points), random])
    for _ in range(rounds):
        scores = points @ directions.T
        order = scores.argsort(0)
        half = len(points) // 2
        directions = torch.stack(
            [points[one[half:]].mean(0) - points[one[:half]].mean(0) for one in order.T] if half else [*directions]
        )
    best = directions.norm(dim=1).argmax()
    return points @ directions[best]


def _ridged(gram: Tensor) -> Tensor:
    """Return a Gram matrix with a ridge, which makes it regular also if all rows are alike."""
    ridge = _RIDGE * gram.diagonal().mean() + torch.finfo(gram.dtype).eps
    return gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


def _refit(values: Tensor, target: Tensor, w_out: Tensor) -> tuple[Tensor, Tensor]:
    """Refit the output weights and bias of a leaf by ridge regression toward the output weights that it has.

    Args:
        values: values of its neurons on its tokens [B, L].
        target: outputs of the dense layer [B, H].
        w_out: output weights of the neurons in the dense layer [L, H].
    """
    mean = values.mean(0)
    centred, rest = values - mean, target - target.mean(0)
    gram = centred.T @ centred
    fitted = w_out + torch.linalg.solve(_ridged(gram), centred.T @ (rest - centred @ w_out))
    return fitted, target.mean(0) - mean @ fitted


def to_relu(weights: DenseWeights, *, activation: str | None = None, l1: float = 0.0, top_k: int | None = None) -> Relu:
    """Copy a dense layer into one with sparse values; with another activation it must be trained to be of use.

    Args:
        weights: the dense layer.
        activation: "relu", "drelu" or, with `top_k`, the parent's (None: the parent's).
        l1: weight of the mean absolute value in the penalty.
        top_k: number of neurons that count for a token.
    """
    settings = ReluSettings(
        hidden_size=weights.hidden_size,
        activation=activation or weights.activation,
        gated=weights.w_gate is not None,
        neurons=weights.neurons,
        l1=l1,
        top_k=top_k,
        input_bias=weights.b_in is not None,
        output_bias=weights.b_out is not None,
    )
    layer = Relu(settings).to(weights.w_in.device, weights.w_in.dtype)
    with torch.no_grad():
        for name, value in layer.named_parameters():
            value.copy_(getattr(weights, name))
    return layer


def _check_tokens(x: Tensor) -> None:
    """Refuse calibration inputs without tokens."""
    if x.ndim != 2 or not len(x):
        raise ConfigError("Conversion needs calibration inputs [tokens, hidden size]; pass some text.")


def _values(weights: DenseWeights, x: Tensor) -> Tensor:
    """Return the values of the dense layer's neurons: [B, N]."""
    return hidden_values(x, weights.w_in, weights.b_in, weights.w_gate, activation=weights.activation)


def _energy(weights: DenseWeights, x: Tensor) -> Tensor:
    """Return the squared size of what each neuron adds to each token's output: [B, N]."""
    return _values(weights, x).square() * weights.w_out.square().sum(1)


def _decisions(weights: DenseWeights, x: Tensor) -> Tensor:
    """Return the scores that would route if a neuron were a node of a tree: [B, N]."""
    if weights.w_gate is not None:
        return x @ weights.w_gate.T
    return functional.linear(x, weights.w_in, weights.b_in)


def _copy_neurons(layer: Any, weights: DenseWeights, places: Tensor) -> None:
    """Copy neurons of a dense layer to the places of a conditional one.

    Args:
        layer: trees or leaves.
        weights: the dense layer.
        places: [K, N], the neuron for each place.
    """
    for name in ("w_in", "b_in", "w_gate", "w_out"):
        target, source = getattr(layer, name), getattr(weights, name)
        if target is not None:
            target.copy_(torch.zeros_like(target) if source is None else source[places])


def relative_error(layer: ConditionalFFN, weights: DenseWeights, x: Tensor, *, tokens: int = 4096) -> float:
    """Return the squared error of a layer's hard form over the variance of the dense layer's output.

    Args:
        layer: the conditional layer.
        weights: the dense layer.
        x: inputs [B, H] that neither conversion nor training saw, for an honest number.
        tokens: tokens that are computed at a time.
    """
    with torch.no_grad():
        exact = torch.cat([weights.forward(part) for part in _parts(x, tokens)])
        errors = [(layer.hard_forward(part) - weights.forward(part)).square().sum() for part in _parts(x, tokens)]
        return float(torch.stack(errors).sum() / (exact - exact.mean(0)).square().sum())


def _parts(x: Tensor, tokens: int) -> Iterator[Tensor]:
    """Yield the tokens of x in parts of at most this many."""
    for start in range(0, len(x), tokens):
        yield x[start : start + tokens]
