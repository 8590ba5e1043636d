"""Split a parameter budget over vocabulary, neurons, KV groups and layers so that the expected cost is smallest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby, product
from math import ceil

from minigpt.errors import PlanError
from minigpt.planning.sensitivity import Sensitivity
from minigpt.transformer.costs import UnitCosts
from minigpt.types import Ints, Shape

# How far a plan may end from the target, as a fraction.
TOLERANCE = 0.01
# A cut vocabulary is a multiple of this.
VOCAB_STEP = 64
# A cut FFN width is a multiple of this.
NEURON_STEP = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The shapes that the planner may choose from; a fixed width is a range of one.

    Attributes:
        layers: allowed numbers of layers.
        kv_groups: allowed numbers of KV groups.
        neurons: least and greatest FFN width.
        vocab: least and greatest number of tokens.
        cut_vocab: greatest number of tokens of a vocabulary that is cut, where the embedding has rows that stand for
            no token.
        experts: allowed numbers of experts; 0 where the family has none.
    """

    layers: Ints
    kv_groups: Ints
    neurons: tuple[int, int]
    vocab: tuple[int, int]
    cut_vocab: int | None = None
    experts: Ints = (0,)

    @property
    def smallest(self) -> Shape:
        """The smallest shape that is allowed."""
        return Shape(
            layers=min(self.layers),
            intermediate_size=next(self.neuron_widths()),
            kv_groups=min(self.kv_groups),
            vocab_size=self.vocab[0],
            experts=min(self.experts),
        )

    def vocab_size(self, room: int) -> int:
        """Return the largest allowed vocabulary that has at most `room` tokens, or the smallest one if none has.

        Allowed are the parent's own number and multiples of 64 within the range.
        """
        least, most = self.vocab
        if room >= most:
            return most
        cut = min(room, most if self.cut_vocab is None else self.cut_vocab)
        return min(most, max(least, cut // VOCAB_STEP * VOCAB_STEP))

    def neuron_widths(self) -> Iterator[int]:
        """Yield the allowed FFN widths: multiples of 32, and the greatest width itself."""
        least, most = self.neurons
        first = -(-least // NEURON_STEP) * NEURON_STEP
        yield from range(first, most, NEURON_STEP)
        yield most


def allocate(
    parent: Shape, costs: UnitCosts, target: int, sensitivity: Sensitivity, limits: Limits, *, slack: int = 0
) -> Shape:
    """Find the shape of about `target` parameters with the smallest expected cost.

    Every number of layers, experts, KV groups and neurons is tried; the vocabulary takes what is left, to the nearest
    64 tokens. Costs add up in log2 of bits per byte. Shapes within 1 % below the target come first; if none of them is
    legal, the shapes within 1 % above it; if there is none either, the nearest shape within `slack` parameters on
    either side (a method that only removes whole layers cannot do better).

    Where the vocabulary stays, one step of the FFN width is coarse. Then every number of layers, experts and KV groups
    is tried with its nearest width, any shape within 1 % of the parent on either side is near enough, and the cost
    decides. Otherwise a KV group, the most costly unit, would be removed for the sake of a fraction of a percent.

    Args:
        parent: shape of the parent.
        costs: parameters of each unit.
        target: parameters to reach.
        sensitivity: the expected cost of removing a fraction of each axis.
        limits: the allowed shapes.
        slack: how far from the target the shape may end if none is within 1 %, in parameters.

    Raises:
        PlanError: no legal shape is near enough; the error says which one is nearest.
    """
    best: tuple[bool, float, int, Shape] | None = None
    nearest: Shape | None = None
    fine = limits.vocab[0] < limits.vocab[1]
    tolerance = TOLERANCE * (target if fine else costs.total(parent))
    for shape in _candidates(costs, target, limits) if fine else _nearest(costs, target, limits):
        gap = costs.total(shape) - target
        if nearest is None or abs(gap) < abs(costs.total(nearest) - target):
            nearest = shape
        if abs(gap) <= tolerance:
            key = (fine and gap > 0, expected_cost(parent, shape, sensitivity), abs(gap), shape)
            if best is None or key[:3] < best[:3]:
                best = key
    if best is not None:
        return best[3]
    if nearest is not None and abs(costs.total(nearest) - target) <= slack:
        return nearest
    if target < costs.total(limits.smallest):
        raise PlanError(_too_small(parent, costs, target, limits.smallest))
    size = f"{costs.total(nearest):,}" if nearest is not None else "none"
    raise PlanError(
        f"No legal shape has {target:,} parameters within 1 %: the nearest is {size} of {costs.total(parent):,}. "
        "Ask for another size, or allow more kinds of pruning with --kinds."
    )


def _too_small(parent: Shape, costs: UnitCosts, target: int, smallest: Shape) -> str:
    """Say that a target is below the smallest shape that is allowed, and which size is possible."""
    least, whole = costs.total(smallest), costs.total(parent)
    return (
        f"{target:,} parameters are too few: the smallest possible size here is {least:,} of {whole:,}, with "
        f"{smallest.layers} of {parent.layers} layers and {smallest.vocab_size:,} of {parent.vocab_size:,} tokens. Ask "
        f"for --target-size {ceil(1000 * least / whole) / 1000:g} or more, or take a smaller parent."
    )


def expected_cost(parent: Shape, shape: Shape, sensitivity: Sensitivity) -> float:
    """Sum the costs of all axes: log2 of the ratio of bits per byte after healing."""
    return sum(sensitivity.cost(axis, fraction) for axis, fraction in removed_fractions(parent, shape).items())


def removed_fractions(parent: Shape, shape: Shape) -> dict[str, float]:
    """Return the fraction of each axis that a shape removes; there is none of experts where the parent has none."""
    experts = {"experts": 1 - shape.experts / parent.experts} if parent.experts else {}
    return experts | {
        "vocab": 1 - shape.vocab_size / parent.vocab_size,
        "ffn": 1 - shape.intermediate_size / parent.intermediate_size,
        "kv_groups": 1 - shape.kv_groups / parent.kv_groups,
        "layers": 1 - shape.layers / parent.layers,
    }


def _candidates(costs: UnitCosts, target: int, limits: Limits) -> Iterator[Shape]:
    """Yield every allowed shape, with the vocabulary that fills up the target."""
    for layers, groups, experts in product(limits.layers, limits.kv_groups, limits.experts):
        for neurons in limits.neuron_widths():
            bare = Shape(layers=layers, intermediate_size=neurons, kv_groups=groups, vocab_size=0, experts=experts)
            room = (target - costs.total(bare)) // costs.per_token
            yield replace(bare, vocab_size=limits.vocab_size(room))


def _nearest(costs: UnitCosts, target: int, limits: Limits) -> Iterator[Shape]:
    """Yield for each number of layers, KV groups and experts the shape nearest to the target; of two, the wider one."""
    candidates = _candidates(costs, target, limits)
    for _, shapes in groupby(candidates, key=lambda shape: (shape.layers, shape.kv_groups, shape.experts)):
        yield min(shapes, key=lambda shape: (abs(costs.total(shape) - target), -shape.intermediate_size))
