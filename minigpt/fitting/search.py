"""Search for the shape and precision that fit: of all that meet the constraints, the one with the least expected cost.

The rule: the expected cost of a point is the cost of what it removes, by the planner's sensitivity after healing, plus
the cost of rounding in its precision, both in log2 of bits per byte. At equal bytes that prefers more parameters in
fewer bits until rounding costs more than pruning would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import product

from minigpt.errors import PlanError
from minigpt.fitting.constraints import Constraint
from minigpt.fitting.costmodel import CostModel
from minigpt.fitting.engines import Engine
from minigpt.fitting.filesize import FileSizes
from minigpt.fitting.profile import covers, work_of
from minigpt.planning.allocate import VOCAB_STEP, Limits, expected_cost
from minigpt.planning.sensitivity import Sensitivity
from minigpt.report.fit import figure
from minigpt.types import Shape

# Share of each limit that the search aims at, so that small errors of a prediction stay on the right side of it.
AIM: Mapping[str, float] = {"file": 0.99, "ram": 0.97, "speed": 0.96}
# Decimals of an expected cost that count: below, points are equal and the smaller file decides.
DECIMALS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A shape in a precision, with everything that is expected of it.

    Attributes:
        runtime: the runtime.
        precision: the precision.
        shape: the shape.
        parameters: its parameters.
        file: bytes of its file.
        speed: tokens a second while decoding; None where nothing was measured.
        ram: peak of resident memory; None where nothing was measured.
        pruning_cost: log2 of the ratio of bits per byte that removing costs.
        rounding_cost: log2 of the ratio of bits per byte that rounding costs.
    """

    runtime: str
    precision: str
    shape: Shape
    parameters: int
    file: int
    speed: float | None
    ram: float | None
    pruning_cost: float
    rounding_cost: float

    @property
    def cost(self) -> float:
        """Expected cost in log2 of bits per byte."""
        return self.pruning_cost + self.rounding_cost

    def value(self, kind: str) -> float | None:
        """Return the figure that a kind of constraint limits."""
        values: Mapping[str, float | None] = {"file": self.file, "ram": self.ram, "speed": self.speed}
        return values[kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Everything that a search reads.

    Attributes:
        engine: the runtime.
        sizes: predicts bytes of files.
        parent: shape of the parent.
        limits: shapes that the planner allows.
        parameters: counts the parameters of a shape.
        sensitivity: expected cost of removing.
        models: measured costs by precision; empty where no constraint needs them.
        constraints: what to meet; relative ones already resolved.
        excluded: precisions and shapes that were measured and do not fit, so that nothing that covers them does.
    """

    engine: Engine
    sizes: FileSizes
    parent: Shape
    limits: Limits
    parameters: Callable[[Shape], int]
    sensitivity: Sensitivity
    models: Mapping[str, CostModel]
    constraints: Sequence[Constraint]
    excluded: Sequence[tuple[str, Shape]] = ()

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that are tried: all, or those that were measured where speed or memory is limited."""
        if needs_measuring(self.constraints):
            return tuple(name for name in self.engine.layouts if name in self.models)
        return tuple(self.engine.layouts)

    def point(self, precision: str, shape: Shape) -> Point:
        """Work out what is expected of a shape in a precision."""
        work = work_of(self.sizes, shape, self.engine.layouts[precision])
        model = self.models.get(precision)
        return Point(
            runtime=self.engine.name,
            precision=precision,
            shape=shape,
            parameters=self.parameters(shape),
            file=round(work.file),
            speed=None if model is None else model.speed(work),
            ram=None if model is None else model.peak(work),
            pruning_cost=expected_cost(self.parent, shape, self.sensitivity),
            rounding_cost=rounding_cost(self.engine, precision),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The point that fits best, and what else there is.

    Attributes:
        best: the chosen point.
        others: further points with why each was not chosen, the nearest first.
    """

    best: Point
    others: tuple[tuple[Point, str], ...]


def needs_measuring(constraints: Sequence[Constraint]) -> bool:
    """Tell whether any constraint is on something that only the device shows: bytes of files follow from the shape."""
    return any(constraint.kind != "file" for constraint in constraints)


def search(space: Space) -> Choice:
    """Find the best point that meets every constraint, and the nearest alternatives.

    Raises:
        PlanError: no allowed shape meets the constraints in any precision; the error names the nearest.
    """
    fitting = {name: list(fitting_points(space, name)) for name in space.precisions}
    points = [point for points in fitting.values() for point in points]
    if not points:
        raise PlanError(_nothing_fits(space))
    best = min(points, key=rank)
    return Choice(best=best, others=_alternatives(space, best, fitting))


def alternatives(space: Space, best: Point) -> tuple[tuple[Point, str], ...]:
    """Find the nearest alternatives to a point that was chosen, and say why each was not."""
    return _alternatives(space, best, {name: list(fitting_points(space, name)) for name in space.precisions})


def fitting_points(space: Space, precision: str) -> Iterator[Point]:
    """Yield for each number of layers, KV groups and neurons the point with the largest vocabulary that fits."""
    limits = space.limits
    for layers, groups, experts in product(limits.layers, limits.kv_groups, limits.experts):
        for neurons in limits.neuron_widths():
            bare = Shape(
                layers=layers,
                intermediate_size=neurons,
                kv_groups=groups,
                vocab_size=limits.vocab[0],
                experts=experts,
            )
            if not meets(space, precision, bare):
                break  # wider ones are larger and slower still
            yield space.point(precision, _widest_vocabulary(space, precision, bare))


def _widest_vocabulary(space: Space, precision: str, bare: Shape) -> Shape:
    """Enlarge the vocabulary of a shape that fits as far as the constraints allow: all of them get worse with it."""
    limits = space.limits
    whole = replace(bare, vocab_size=limits.vocab[1])
    if meets(space, precision, whole):
        return whole
    low, high = limits.vocab[0] // VOCAB_STEP, limits.vocab[1] // VOCAB_STEP
    while low < high:
        middle = (low + high + 1) // 2
        if meets(space, precision, replace(bare, vocab_size=limits.vocab_size(middle * VOCAB_STEP))):
            low = middle
        else:
            high = middle - 1
    return replace(bare, vocab_size=limits.vocab_size(low * VOCAB_STEP))


def meets(space: Space, precision: str, shape: Shape) -> bool:
    """Tell whether a shape in a precision meets every constraint."""
    if any(name == precision and covers(shape, small) for name, small in space.excluded):
        return False
    return all(shortfall(space, item, precision, shape) <= AIM[item.kind] for item in space.constraints)


def shortfall(space: Space, constraint: Constraint, precision: str, shape: Shape) -> float:
    """Return how many times a point exceeds a constraint: at most 1 where it meets it."""
    layout, model = space.engine.layouts[precision], space.models.get(precision)
    if constraint.kind == "file":
        return space.sizes.parts(shape, layout).total / constraint.amount
    if model is None:
        return float("inf")
    work = work_of(space.sizes, shape, layout)
    if constraint.kind == "speed":
        return constraint.amount / model.speed(work)
    peak = model.peak(work)
    return float("inf") if peak is None else peak / constraint.amount


def rank(point: Point) -> tuple[float, int]:
    """Order points by expected cost, and among equals by bytes."""
    return round(point.cost, DECIMALS), point.file


def _alternatives(space: Space, best: Point, fitting: Mapping[str, Sequence[Point]]) -> tuple[tuple[Point, str], ...]:
    """List alternatives; one that is the nearest in several ways is named once, and the chosen one never."""
    reasons: dict[Point, str] = {}
    for point, reason in _differing(space, best, fitting):
        if point.shape != best.shape or point.precision != best.precision:
            reasons.setdefault(point, reason)
    return tuple(reasons.items())


def _differing(space: Space, best: Point, fitting: Mapping[str, Sequence[Point]]) -> Iterator[tuple[Point, str]]:
    """Yield the best point of every other precision, the best with other layers, and the uncut parent."""
    best_of = {name: min(points, key=rank) for name, points in fitting.items() if points}
    points = fitting[best.precision]
    for name in space.precisions:
        if name != best.precision and name in best_of:
            yield best_of[name], f"in {name}: {_worse(best_of[name], best)}"
        elif name != best.precision:
            yield space.point(name, space.limits.smallest), f"in {name} nothing fits: this is the smallest shape"
    for title, differs in (
        ("other layers", [point for point in points if point.shape.layers != best.shape.layers]),
        ("another vocabulary", [point for point in points if _apart(point.shape.vocab_size, best.shape.vocab_size)]),
        ("other KV groups", [point for point in points if point.shape.kv_groups != best.shape.kv_groups]),
    ):
        if differs:
            nearest = min(differs, key=rank)
            yield nearest, f"{title}: {_worse(nearest, best)}"
    for name in space.precisions:
        if not meets(space, name, space.parent):
            yield space.point(name, space.parent), f"the uncut parent in {name} does not fit"


def _apart(one: int, other: int) -> bool:
    """Tell whether two widths differ by more than a tenth."""
    return abs(one - other) > 0.1 * max(one, other)


def _worse(point: Point, best: Point) -> str:
    """Say how much more a point is expected to cost."""
    rise = 100 * (2 ** (point.cost - best.cost) - 1)
    if rise < 0:
        return f"{rise:+.1f} % bits per byte expected, but not rehearsed"
    return f"{rise:+.1f} % bits per byte expected".replace("+0.0 %", "no more")


def _nothing_fits(space: Space) -> str:
    """Write the sentence for constraints that nothing meets: the nearest point, and what it would do."""
    shape = space.limits.smallest
    name = min(
        space.precisions,
        key=lambda precision: max(shortfall(space, item, precision, shape) for item in space.constraints),
    )
    point = space.point(name, shape)
    worst = max(space.constraints, key=lambda item: shortfall(space, item, name, shape))
    return (
        f"Nothing fits {worst.text} in {space.engine.name}: the nearest is {point.parameters / 1e6:.1f} M parameters "
        f"in {name} with {figure(worst.kind, point.value(worst.kind))}; allow that, or take another runtime or parent."
    )


def rounding_cost(engine: Engine, precision: str) -> float:
    """Return the expected cost of rounding in log2 of bits per byte."""
    name = "nf4" if engine.formats[precision] == "torch-4bit" else precision
    return _rounding_table()[name]


@cache
def _rounding_table() -> dict[str, float]:
    """Read the shipped costs of rounding."""
    table: dict[str, float] = json.loads(files("minigpt.fitting").joinpath("rounding.json").read_text("utf-8"))[
        "log2_ratio"
    ]
    return table
