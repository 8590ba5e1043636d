"""The kinds of conditional layers that a build can make, as a table: name, what a token reads, paper, conversion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from minigpt.conditional.settings import ConditionalSettings
from minigpt.errors import UnknownName
from minigpt.lazy import resolve

if TYPE_CHECKING:
    from torch import Tensor

    from minigpt.conditional.base import ConditionalFFN, DenseWeights

    Conversion = Callable[[DenseWeights, Tensor, ConditionalSettings], ConditionalFFN]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of conditional layers.

    Attributes:
        name: name that `build --conditional` takes.
        reads: what a token reads of such a layer.
        paper: title or authors, and the number on arXiv.
        convert: `module:function` that makes a layer of a dense one; it is called as `function(weights, x, settings)`
            with calibration inputs x [tokens, H].
        trained: whether a converted layer learns from the dense one; thresholds need no training.
    """

    name: str
    reads: str
    paper: str
    convert: str
    trained: bool = True

    def layer(self, weights: DenseWeights, x: Tensor, settings: ConditionalSettings) -> ConditionalFFN:
        """Make a conditional layer of a dense one, before any training.

        Args:
            weights: the dense layer.
            x: calibration inputs [tokens, H] of this layer.
            settings: settings of the conversion.
        """
        return cast("Conversion", resolve(self.convert))(weights, x, settings)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="fff",
            reads="one leaf of a tree: all neurons of the leaf, and the decisions on the way",
            paper="fast feedforward networks, arXiv 2308.14711",
            convert="minigpt.conditional.kinds:leaves_of",
        ),
        Kind(
            name="trees",
            reads="a path through each of several trees whose nodes are neurons",
            paper="UltraFastBERT, arXiv 2311.10770",
            convert="minigpt.conditional.kinds:trees_of",
        ),
        Kind(
            name="relu",
            reads="all gates, and the neurons whose gate is open (ReLU in place of the parent's activation)",
            paper="TurboSparse, arXiv 2406.05955; TwELL, arXiv 2603.23198",
            convert="minigpt.conditional.kinds:relu_of",
        ),
        Kind(
            name="topk",
            reads="all gates and inputs, and the output rows of the k largest values",
            paper="top-k activations, as in arXiv 2406.05955",
            convert="minigpt.conditional.kinds:topk_of",
        ),
        Kind(
            name="threshold",
            reads="all gates, and the neurons whose gate is open wide enough; nothing is trained before healing",
            paper="CATS, arXiv 2404.08763; TEAL, arXiv 2408.14690",
            convert="minigpt.conditional.kinds:threshold_of",
            trained=False,
        ),
    )
}


def kind_named(name: str) -> Kind:
    """Return the kind of a name.

    Raises:
        UnknownName: there is no such kind.
    """
    if name not in KINDS:
        raise UnknownName("kind of conditional layer", name, KINDS)
    return KINDS[name]


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
    from minigpt.conditional.convert import to_leaves

    depth = leaf_depth(settings.visited) if settings.depth is None else settings.depth
    width = count_of(weights.neurons, settings.visited)
    return to_leaves(weights, x, depth=depth, leaf_width=width, hardening=settings.hardening)


def trees_of(weights: DenseWeights, x: Tensor, settings: ConditionalSettings) -> ConditionalFFN:
    """Make parallel trees of neurons; arguments as of `Kind.layer`."""
    from minigpt.conditional.convert import to_trees

    depth = tree_depth(settings.visited) if settings.depth is None else settings.depth
    trees = max(1, count_of(weights.neurons, settings.visited) // (depth + 1))
    return to_trees(weights, x, depth=depth, trees=trees)


def relu_of(weights: DenseWeights, x: Tensor, settings: ConditionalSettings) -> ConditionalFFN:
    """Copy a layer with ReLU in place of its activation; arguments as of `Kind.layer`."""
    from minigpt.conditional.convert import to_relu

    return to_relu(weights, activation="relu", l1=settings.l1)


def topk_of(weights: DenseWeights, x: Tensor, settings: ConditionalSettings) -> ConditionalFFN:
    """Copy a layer in which the k largest values count; arguments as of `Kind.layer`."""
    from minigpt.conditional.convert import to_relu

    return to_relu(weights, top_k=count_of(weights.neurons, settings.visited))


def threshold_of(weights: DenseWeights, x: Tensor, settings: ConditionalSettings) -> ConditionalFFN:
    """Copy a layer with a threshold on its gates; arguments as of `Kind.layer`."""
    from minigpt.conditional.layers.threshold import gate_threshold_layer

    return gate_threshold_layer(weights, x, settings.visited)
