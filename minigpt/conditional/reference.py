"""Plain conditional feed-forward functions: slow, free of state, and the measure for every layer and kernel.

Shapes: B tokens, H hidden size, K trees, D depth, L neurons of a leaf, N neurons (a tree has N = 2^(D+1) - 1). Weights
are stored by neuron: row n of `w_in` and `w_gate` reads for neuron n, and row n of `w_out` is what neuron n adds to the
output, so `w_out` is the transpose of the weight of a `torch.nn.Linear`. Node n of a tree has the children 2n+1 (left)
and 2n+2 (right).

Every function computes in the dtype of its arguments and can be differentiated. Where a rounded score changes a
path, compare with `tree_ffn_along` or `leaf_of` on the path that was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from minigpt.errors import UnknownName

# Functions of one neuron by the names that Hugging Face configs use.
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
}


def activation_of(name: str) -> Callable[[Tensor], Tensor]:
    """Return the function of an activation's name.

    Raises:
        UnknownName: there is no such activation.
    """
    if name not in ACTIVATIONS:
        raise UnknownName("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def tree_path(x: Tensor, w_in: Tensor, b_in: Tensor | None, w_gate: Tensor | None, *, depth: int) -> Tensor:
    """Return the nodes that each token visits in each tree, from the root down: integers [B, K, D+1].

    A node's score is w_in.x + b_in, or w_gate.x where there is a gate; a positive score leads to the right
    (2311.10770, algorithm 1).

    Args:
        x: tokens [B, H].
        w_in: input weights [K, N, H].
        b_in: input biases [K, N], which routing reads only where there is no gate.
        w_gate: gate weights [K, N, H], or None.
        depth: the number D of decisions; D = 0 is a single neuron.
    """
    path = torch.zeros(x.shape[0], w_in.shape[0], depth + 1, dtype=torch.long)
    for token in range(x.shape[0]):
        for tree in range(w_in.shape[0]):
            node = 0
            for level in range(depth + 1):
                path[token, tree, level] = node
                score = _score(x[token], w_in[tree, node], _entry(b_in, tree, node))
                if w_gate is not None:
                    score = _score(x[token], w_gate[tree, node], None)
                node = 2 * node + 1 + int(score > 0)
    return path.to(x.device)


def tree_ffn_along(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor | None,
    w_gate: Tensor | None,
    w_out: Tensor,
    path: Tensor,
    *,
    activation: str,
) -> Tensor:
    """Sum what the neurons on given paths add to the output: [B, H].

    Neuron n adds act(w_in[n].x + b_in[n]) * w_out[n], or act(w_gate[n].x) * (w_in[n].x + b_in[n]) * w_out[n] where
    there is a gate.

    Args:
        x: tokens [B, H].
        w_in: input weights [K, N, H].
        b_in: input biases [K, N], or None.
        w_gate: gate weights [K, N, H], or None.
        w_out: output weights [K, N, H].
        path: nodes to visit [B, K, any number].
        activation: a name of `ACTIVATIONS`.
    """
    act, rows = activation_of(activation), []
    for token in range(x.shape[0]):
        row = torch.zeros_like(x[token])
        for tree in range(w_in.shape[0]):
            for node in path[token, tree].tolist():
                score = _score(x[token], w_in[tree, node], _entry(b_in, tree, node))
                value = act(score) if w_gate is None else act(_score(x[token], w_gate[tree, node], None)) * score
                row = row + value * w_out[tree, node]
        rows.append(row)
    return torch.stack(rows) if rows else torch.zeros_like(x)


def tree_ffn(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor | None,
    w_gate: Tensor | None,
    w_out: Tensor,
    *,
    depth: int,
    activation: str,
) -> Tensor:
    """Compute K parallel trees in which every node is a neuron: [B, H] (UltraFastBERT, 2311.10770).

    Args:
        x: tokens [B, H].
        w_in: input weights [K, N, H] with N = 2^(D+1) - 1.
        b_in: input biases [K, N], or None.
        w_gate: gate weights [K, N, H], which also decide the path, or None.
        w_out: output weights [K, N, H].
        depth: the number D of decisions; a token visits D+1 neurons of each tree.
        activation: a name of `ACTIVATIONS`.
    """
    path = tree_path(x, w_in, b_in, w_gate, depth=depth)
    return tree_ffn_along(x, w_in, b_in, w_gate, w_out, path, activation=activation)


def leaf_of(x: Tensor, w_node: Tensor, b_node: Tensor, *, depth: int) -> Tensor:
    """Return the leaf that each token reaches: integers [B] (FFF, 2308.14711, algorithm 1).

    A token goes right where w_node.x + b_node >= 0; leaves are numbered from left to right.

    Args:
        x: tokens [B, H].
        w_node: node weights [2^D - 1, H].
        b_node: node biases [2^D - 1].
        depth: the number D of decisions; D = 0 is a single leaf.
    """
    leaves = torch.zeros(x.shape[0], dtype=torch.long)
    for token in range(x.shape[0]):
        node = 0
        for _ in range(depth):
            node = 2 * node + 1 + int(_score(x[token], w_node[node], b_node[node]) >= 0)
        leaves[token] = node - (2**depth - 1)
    return leaves.to(x.device)


def leaf_mixture(x: Tensor, w_node: Tensor, b_node: Tensor, *, depth: int) -> Tensor:
    """Return the weight of each leaf in training: [B, 2^D], each row sums to 1 (2308.14711, algorithm 1).

    A leaf's weight is the product over its path of c where the path goes right and 1 - c where it goes left, with
    c = sigmoid(w_node.x + b_node).
    """
    rows = []
    for token in range(x.shape[0]):
        weights = []
        for leaf in range(2**depth):
            node, weight = leaf + 2**depth - 1, torch.ones_like(x[token, 0])
            while node > 0:
                parent = (node - 1) // 2
                right = torch.sigmoid(_score(x[token], w_node[parent], b_node[parent]))
                weight = weight * (right if node == 2 * parent + 2 else 1 - right)
                node = parent
            weights.append(weight)
        rows.append(torch.stack(weights))
    return torch.stack(rows) if rows else x.new_zeros(0, 2**depth)


def one_leaf(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_gate: Tensor | None,
    w_out: Tensor,
    b_out: Tensor,
    *,
    activation: str,
) -> Tensor:
    """Compute one leaf for one token: [H]. Weights [L, H], `b_in` [L], `b_out` [H]."""
    scores = torch.stack([_score(x, w_in[n], b_in[n]) for n in range(w_in.shape[0])])
    act = activation_of(activation)
    if w_gate is None:
        return act(scores) @ w_out + b_out
    gates = torch.stack([_score(x, row, None) for row in w_gate])
    return (act(gates) * scores) @ w_out + b_out


def leaf_ffn(
    x: Tensor,
    w_node: Tensor,
    b_node: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_gate: Tensor | None,
    w_out: Tensor,
    b_out: Tensor,
    *,
    depth: int,
    activation: str,
) -> Tensor:
    """Compute the one leaf that each token reaches: [B, H] (FFF at inference, 2308.14711).

    Args:
        x: tokens [B, H].
        w_node: node weights [2^D - 1, H].
        b_node: node biases [2^D - 1].
        w_in: input weights of the leaves [2^D, L, H].
        b_in: input biases of the leaves [2^D, L].
        w_gate: gate weights of the leaves [2^D, L, H], or None.
        w_out: output weights of the leaves [2^D, L, H].
        b_out: output biases of the leaves [2^D, H], which count here as in training.
        depth: the number D of decisions.
        activation: a name of `ACTIVATIONS`.
    """
    leaves, rows = leaf_of(x, w_node, b_node, depth=depth).tolist(), []
    for token, leaf in enumerate(leaves):
        gate = None if w_gate is None else w_gate[leaf]
        rows.append(one_leaf(x[token], w_in[leaf], b_in[leaf], gate, w_out[leaf], b_out[leaf], activation=activation))
    return torch.stack(rows) if rows else torch.zeros_like(x)


def leaf_ffn_soft(
    x: Tensor,
    w_node: Tensor,
    b_node: Tensor,
    w_in: Tensor,
    b_in: Tensor,
    w_gate: Tensor | None,
    w_out: Tensor,
    b_out: Tensor,
    *,
    depth: int,
    activation: str,
) -> Tensor:
    """Compute all leaves and add them up by `leaf_mixture`: [B, H] (FFF in training). Arguments as of `leaf_ffn`."""
    mixture, rows = leaf_mixture(x, w_node, b_node, depth=depth), []
    for token in range(x.shape[0]):
        row = torch.zeros_like(x[token])
        for leaf in range(2**depth):
            gate = None if w_gate is None else w_gate[leaf]
            value = one_leaf(x[token], w_in[leaf], b_in[leaf], gate, w_out[leaf], b_out[leaf], activation=activation)
            row = row + mixture[token, leaf] * value
        rows.append(row)
    return torch.stack(rows) if rows else torch.zeros_like(x)


def hidden_values(x: Tensor, w_in: Tensor, b_in: Tensor | None, w_gate: Tensor | None, *, activation: str) -> Tensor:
    """Return the values of all neurons of a dense layer: [B, N].

    The value is act(w_in.x + b_in), or act(w_gate.x) * (w_in.x + b_in) where there is a gate. The activation "drelu"
    needs a gate and is relu(w_gate.x) * relu(w_in.x + b_in) (TurboSparse, 2406.05955, equation 3).

    Args:
        x: tokens [B, H].
        w_in: input weights [N, H].
        b_in: input biases [N], or None.
        w_gate: gate weights [N, H], or None.
        activation: a name of `ACTIVATIONS`, or "drelu".
    """
    scores = x @ w_in.T if b_in is None else x @ w_in.T + b_in
    if activation == "drelu":
        if w_gate is None:
            raise ValueError("dReLU needs a gate")
        return functional.relu(x @ w_gate.T) * functional.relu(scores)
    act = activation_of(activation)
    return act(scores) if w_gate is None else act(x @ w_gate.T) * scores


def dense_ffn(
    x: Tensor, w_in: Tensor, b_in: Tensor | None, w_gate: Tensor | None, w_out: Tensor, *, activation: str
) -> Tensor:
    """Compute a dense layer without output bias: [B, H]. Arguments as of `hidden_values`, and `w_out` [N, H]."""
    return hidden_values(x, w_in, b_in, w_gate, activation=activation) @ w_out


def topk_ffn(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor | None,
    w_gate: Tensor | None,
    w_out: Tensor,
    *,
    k: int,
    activation: str,
) -> Tensor:
    """Compute a layer in which the k neurons of largest absolute value count for a token: [B, H].

    Of equal values at the border any may count. Arguments as of `dense_ffn`.
    """
    values, rows = hidden_values(x, w_in, b_in, w_gate, activation=activation), []
    for token in range(x.shape[0]):
        sizes = values[token].detach().abs().tolist()
        largest = sorted(range(len(sizes)), key=lambda neuron: -sizes[neuron])[:k]
        rows.append(values[token, largest] @ w_out[largest])
    return torch.stack(rows) if rows else torch.zeros_like(x)


def above(values: Tensor, threshold: float) -> Tensor:
    """Set entries of absolute value up to the threshold to zero (TEAL, 2408.14690, equation 2)."""
    return torch.where(values.abs() > threshold, values, torch.zeros_like(values))


def threshold_ffn(
    x: Tensor,
    w_in: Tensor,
    b_in: Tensor | None,
    w_gate: Tensor | None,
    w_out: Tensor,
    *,
    t_in: float,
    t_gate: float,
    t_out: float,
    activation: str,
    t_act: float = -1.0,
) -> Tensor:
    """Compute a layer whose projections read only inputs above a threshold: [B, H] (TEAL, 2408.14690).

    Args:
        x: tokens [B, H].
        w_in: input weights [N, H].
        b_in: input biases [N], or None.
        w_gate: gate weights [N, H], or None.
        w_out: output weights [N, H].
        t_in: threshold of what `w_in` reads.
        t_gate: threshold of what `w_gate` reads; without a gate it does nothing.
        t_out: threshold of what `w_out` reads: the values of the neurons.
        activation: a name of `ACTIVATIONS`.
        t_act: threshold of the activated gate (CATS, 2404.08763), -1 for none; without a gate it does nothing.
    """
    act, kept = activation_of(activation), above(x, t_in)
    scores = kept @ w_in.T if b_in is None else kept @ w_in.T + b_in
    values = act(scores) if w_gate is None else above(act(above(x, t_gate) @ w_gate.T), t_act) * scores
    return above(values, t_out) @ w_out


def _score(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return weight.x + bias of one neuron and one token."""
    score = (weight * x).sum()
    return score if bias is None else score + bias


def _entry(bias: Tensor | None, tree: int, node: int) -> Tensor | None:
    """Return the bias of one neuron of one tree."""
    return None if bias is None else bias[tree, node]
