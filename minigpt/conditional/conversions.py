"""Conversions that the table of kinds names: how settings become the shape of a layer."""

from __future__ import annotations

from torch import Tensor

from minigpt.conditional.base import ConditionalFFN, DenseWeights
from minigpt.conditional.convert import to_leaves, to_relu, to_trees
from minigpt.conditional.layers.threshold import gate_threshold_layer
from minigpt.conditional.settings import ConditionalSettings


def count_of(neurons: int, visited: float) -> int:
    """Return how many of a layer's neurons a token is to visit, at least one."""
    return max(1, round(neurons * visited))


def tree_depth(visited: float) -> int:
    """Return the depth at which trees hold about as many neurons as the dense layer: (2^(D+1) - 1) / (D+1) <= 1/v."""
    depth = 0
    while depth < 20 and (2 ** (depth + 2) - 1) * visited <= (depth + 2) * 1.001:
        depth += 1
    return depth


def leaf_depth(visited: float) -> int:
    """Return the depth at which leaves hold about as many neurons as the dense layer: 2^D <= 1/v."""
    depth = 0
    while depth < 20 and 2 ** (depth + 1) * visited <= 1.001:
        depth += 1
    return depth


def leaves_of(weights: DenseWeights, x: Tensor, settings: ConditionalSettings) -> ConditionalFFN:
    """Make a tree with leaves; arguments as of `Kind.layer`."""
    depth = leaf_depth(settings.visited) if settings.depth is None else settings.depth
    width = count_of(weights.neurons, settings.visited)
    return to_leaves(weights, x, depth=depth, leaf_width=width, hardening=settings.hardening)


def trees_of(weights: DenseWeights, x: Tensor, settings: ConditionalSettings) -> ConditionalFFN:
    """Make parallel trees of neurons; arguments as of `Kind.layer`."""
    depth = tree_depth(settings.visited) if settings.depth is None else settings.depth
    trees = max(1, count_of(weights.neurons, settings.visited) // (depth + 1))
    return to_trees(weights, x, depth=depth, trees=trees)


def relu_of(weights: DenseWeights, x: Tensor, settings: ConditionalSettings) -> ConditionalFFN:
    """Copy a layer with ReLU in place of its activation; arguments as of `Kind.layer`."""
    return to_relu(weights, activation="relu", l1=settings.l1)


def topk_of(weights: DenseWeights, x: Tensor, settings: ConditionalSettings) -> ConditionalFFN:
    """Copy a layer in which the k largest values count; arguments as of `Kind.layer`."""
    return to_relu(weights, top_k=count_of(weights.neurons, settings.visited))


def threshold_of(weights: DenseWeights, x: Tensor, settings: ConditionalSettings) -> ConditionalFFN:
    """Copy a layer with a threshold on its gates; arguments as of `Kind.layer`."""
    return gate_threshold_layer(weights, x, settings.visited)
