"""Split a parameter budget over vocabulary, neurons, KV groups and layers so that the expected cost is smallest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from minigpt.errors import PlanError
from minigpt.planning.sensitivity import Sensitivity
from minigpt.transformer.arch import UnitCosts
from minigpt.types import Ints, Shape

TOLERANCE = 0.01
VOCAB_STEP = 64
NEURON_STEP = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the planner may choose from. A fixed width is a range of one.

    `layers` and `kv_groups` list the allowed numbers kept; `neurons` and `vocab` are (least, most) kept. A model may
    have rows that stand for no token: a vocabulary that is cut then keeps at most `cut_vocab`.
    """

    layers: Ints
    kv_groups: Ints
    neurons: tuple[int, int]
    vocab: tuple[int, int]
    cut_vocab: int | None = None

    def vocab_size(self, room: int) -> int:
        """The most tokens in `room` tokens' place: the parent's own number or a multiple of 64, within the range."""
        least, most = self.vocab
        if room >= most:
            return most
        cut = min(room, most if self.cut_vocab is None else self.cut_vocab)
        return min(most, max(least, cut // VOCAB_STEP * VOCAB_STEP))

    def neuron_widths(self) -> Iterator[int]:
        """Allowed FFN widths: multiples of 32 (and the two ends, if they are fixed or the parent's own)."""
        least, most = self.neurons
        first = -(-least // NEURON_STEP) * NEURON_STEP
        yield from range(first, most, NEURON_STEP)
        yield most


def allocate(
    parent: Shape, costs: UnitCosts, target: int, sensitivity: Sensitivity, limits: Limits, *, slack: int = 0
) -> Shape:
    """The shape of about `target` parameters with the smallest expected cost.

    Every number of layers, KV groups and neurons is tried; the vocabulary takes up what is left, to the nearest 64
    tokens. Costs add up in log2 of bits per byte. Never above the target if one of the shapes within 1 % below it is
    legal; otherwise the nearest within 1 %, or failing that within `slack` parameters, on either side (a method that
    removes whole layers only cannot do better).

    Where the vocabulary stays, a step of the neurons is coarse (1.2 % of the default parent). Then every number of
    layers and KV groups is tried with its nearest width, 1 % of the parent on either side is near enough, and cost
    decides: else a KV group, the dearest unit there is, would go for a fraction of a percent.

    Raises:
        PlanError: no legal shape is within 1 % of the target or `slack` parameters; says what the nearest is.
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
    size = f"{costs.total(nearest):,}" if nearest is not None else "none"
    raise PlanError(
        f"No legal shape has {target:,} parameters within 1 %: the nearest is {size} of {costs.total(parent):,}. "
        "Ask for another size, or allow more kinds of pruning with --kinds."
    )


def expected_cost(parent: Shape, shape: Shape, sensitivity: Sensitivity) -> float:
    """Sum of the costs of the axes, log2 of the ratio of bits per byte after healing."""
    return sum(sensitivity.cost(axis, fraction) for axis, fraction in removed_fractions(parent, shape).items())


def removed_fractions(parent: Shape, shape: Shape) -> dict[str, float]:
    """What fraction of each axis a shape removes."""
    return {
        "vocab": 1 - shape.vocab_size / parent.vocab_size,
        "ffn": 1 - shape.intermediate_size / parent.intermediate_size,
        "kv_groups": 1 - shape.kv_groups / parent.kv_groups,
        "layers": 1 - shape.layers / parent.layers,
    }


def _candidates(costs: UnitCosts, target: int, limits: Limits) -> Iterator[Shape]:
    for layers in limits.layers:
        for groups in limits.kv_groups:
            for neurons in limits.neuron_widths():
                bare = Shape(layers=layers, intermediate_size=neurons, kv_groups=groups, vocab_size=0)
                room = (target - costs.total(bare)) // costs.per_token
                yield replace(bare, vocab_size=limits.vocab_size(room))


def _nearest(costs: UnitCosts, target: int, limits: Limits) -> Iterator[Shape]:
    """Of each number of layers and KV groups the width that is nearest to the target, the larger of two."""
    for _, shapes in groupby(_candidates(costs, target, limits), key=lambda shape: (shape.layers, shape.kv_groups)):
        yield min(shapes, key=lambda shape: (abs(costs.total(shape) - target), -shape.intermediate_size))
