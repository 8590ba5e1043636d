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
            convert="minigpt.conditional.conversions:leaves_of",
        ),
        Kind(
            name="trees",
            reads="a path through each of several trees whose nodes are neurons",
            paper="UltraFastBERT, arXiv 2311.10770",
            convert="minigpt.conditional.conversions:trees_of",
        ),
        Kind(
            name="relu",
            reads="all gates, and the neurons whose gate is open (ReLU in place of the parent's activation)",
            paper="TurboSparse, arXiv 2406.05955; TwELL, arXiv 2603.23198",
            convert="minigpt.conditional.conversions:relu_of",
        ),
        Kind(
            name="topk",
            reads="all gates and inputs, and the output rows of the k largest values",
            paper="top-k activations, as in arXiv 2406.05955",
            convert="minigpt.conditional.conversions:topk_of",
        ),
        Kind(
            name="threshold",
            reads="all gates, and the neurons whose gate is open wide enough; nothing is trained before healing",
            paper="CATS, arXiv 2404.08763; TEAL, arXiv 2408.14690",
            convert="minigpt.conditional.conversions:threshold_of",
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
