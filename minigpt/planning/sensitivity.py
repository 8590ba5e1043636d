"""What removing a fraction of one axis costs, as a curve: measured on the parent, or shipped for parents we know."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Literal

from minigpt.errors import PlanError
from minigpt.types import AXES, Shape

Curve = tuple[tuple[float, float], ...]
Healing = Literal["short", "long", "thorough"]

LEFT_AFTER: Mapping[Healing, Mapping[str, float]] = {
    "short": {axis: 1.0 for axis in AXES},
    "long": {"vocab": 0.7, "ffn": 0.3, "kv_groups": 0.3, "layers": 0.25},
    "thorough": {"vocab": 1.0, "ffn": 0.16, "kv_groups": 0.3, "layers": 0.16},
}
"""Which part of a cost healing leaves. "long" comes from eight healed shapes on law and medicine at 10 to 25 % removed
(see LOG.md). By bits per byte alone neurons would stand at 0.22: knowledge goes with them that bits per byte hardly
shows and healing does not bring back, so they are spared (questions of four glossaries before healing: 0.508 with
four of 30 layers removed, 0.425 with 29 % of the neurons). "thorough" is fitted to six shapes at 25 and 50 % removed
on medicine, 26 to 33 million tokens of healing (docs/results/quality.md): the rest heals, a vocabulary does not, and
the more tokens are kept the better it answers questions, too. The values for KV groups are guesses."""

KNOWN_TO: Mapping[Healing, Mapping[str, float]] = {
    "short": {},
    "long": {},
    "thorough": {"vocab": 0.6, "ffn": 0.55, "kv_groups": 0.34, "layers": 0.27},
}
"""Up to which fraction removed the shapes went that "thorough" is fitted to. Beyond it a cost counts `BEYOND` times as
much: a guard, not a measurement, without which a third of the parent would be eight layers or a hundred neurons."""
BEYOND = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Costs of pruning one axis alone: for each axis points (fraction removed, log2 of the ratio of bits per byte).

    Curves start at (0, 0) and are made monotone; between points they are linear, beyond the last one they go on
    with the last slope, doubled, since every method collapses in the end. `weights` say which part of a cost is left
    after healing, `known_to` up to which fraction that is known; `source` says where the numbers come from.
    """

    curves: Mapping[str, Curve]
    weights: Mapping[str, float] = field(default_factory=lambda: LEFT_AFTER["short"])
    known_to: Mapping[str, float] = field(default_factory=dict)
    source: str = "measured"

    @classmethod
    def after(cls, healing: Healing, curves: Mapping[str, Curve], source: str = "measured") -> Sensitivity:
        """The curves before healing, with what healing leaves of them."""
        return cls(curves=curves, weights=LEFT_AFTER[healing], known_to=KNOWN_TO[healing], source=source)

    def cost(self, axis: str, removed: float) -> float:
        """Expected cost of removing this fraction of an axis, after healing.

        Raises:
            PlanError: the axis was not measured.
        """
        if removed <= 0:
            return 0.0
        if not any(place > 0 for place, _ in self.curves.get(axis, ())):
            raise PlanError(f"No sensitivity was measured for {axis!r}; measured: {', '.join(sorted(self.curves))}.")
        curve = monotone(self.curves[axis])
        known = interpolate(curve, min(removed, self.known_to.get(axis, 1.0)))
        return self.weights.get(axis, 1.0) * (known + BEYOND * (interpolate(curve, removed) - known))


def monotone(curve: Curve) -> Curve:
    """The curve from (0, 0), sorted, with costs that never fall (noise must not make removal look free).

    Of several costs at one place the highest counts; removing nothing costs nothing, whatever was measured.
    """
    best = 0.0
    points = {0.0: 0.0}
    for removed, cost in sorted(curve):
        if removed > 0:
            points[removed] = best = max(best, cost)
    return tuple(points.items())


def interpolate(curve: Curve, at: float) -> float:
    """Piecewise linear value of a monotone curve; beyond its end, twice the last slope."""
    places = [point[0] for point in curve]
    index = bisect_right(places, at)
    if index < len(curve):
        (x0, y0), (x1, y1) = curve[index - 1], curve[index]
        return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    (x0, y0), (x1, y1) = list(pairwise(curve))[-1]
    return y1 + 2 * (y1 - y0) / (x1 - x0) * (at - x1)


@cache
def _tables() -> tuple[dict[str, object], ...]:
    text = files("minigpt.planning").joinpath("sensitivity.json").read_text("utf-8")
    return tuple(json.loads(text)["parents"])


def shipped(model_type: str, hidden_size: int, shape: Shape, healing: Healing) -> Sensitivity | None:
    """The table we measured for a parent of exactly this family and shape, or None."""
    wanted = [model_type, hidden_size, shape.layers, shape.intermediate_size, shape.kv_groups, shape.vocab_size]
    for table in _tables():
        if table["parent"] == wanted:
            curves = {axis: tuple((x, y) for x, y in points) for axis, points in table["curves"].items()}  # type: ignore[attr-defined]
            return Sensitivity.after(healing, curves, str(table["source"]))
    return None
