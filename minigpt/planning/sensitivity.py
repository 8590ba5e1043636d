"""Sensitivity: the cost of removing a fraction of one axis, measured on the parent or shipped for known parents."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Literal

from minigpt.errors import PlanError
from minigpt.parsing import load_json
from minigpt.types import AXES, Shape

# Points (fraction removed, log2 of the ratio of bits per byte) of one axis.
Curve = tuple[tuple[float, float], ...]
# The amount of training that follows the pruning.
Healing = Literal["short", "long", "thorough"]

# The part of a cost that is left after healing, by axis. "long" and "thorough" are fitted to healed shapes
# (docs/results/quality.md). In "long" neurons cost more than bits per byte alone would say, because healing does not
# bring back the knowledge that is lost with them. The values for KV groups and experts are guesses.
LEFT_AFTER: Mapping[Healing, Mapping[str, float]] = {
    "short": {axis: 1.0 for axis in AXES},
    "long": {"vocab": 0.7, "ffn": 0.3, "kv_groups": 0.3, "layers": 0.25, "experts": 0.3},
    "thorough": {"vocab": 1.0, "ffn": 0.16, "kv_groups": 0.3, "layers": 0.16, "experts": 0.3},
}
# The largest fraction removed in the shapes that the values above are fitted to, by axis; that of experts is a guess.
KNOWN_TO: Mapping[Healing, Mapping[str, float]] = {
    "short": {},
    "long": {},
    "thorough": {"vocab": 0.6, "ffn": 0.55, "kv_groups": 0.34, "layers": 0.27, "experts": 0.5},
}
# Factor on a cost beyond `KNOWN_TO`: a safeguard, not a measurement. Without it a small target would keep very few
# layers or very few neurons.
BEYOND = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Expected costs of pruning each axis alone.

    Curves start at (0, 0) and are made monotone. Between points they are linear; beyond the last point they continue
    with twice the last slope, because every method collapses in the end.

    Attributes:
        curves: points (fraction removed, log2 of the ratio of bits per byte) of each axis, before healing.
        weights: the part of a cost that is left after healing, by axis.
        known_to: the fraction removed up to which `weights` are known, by axis.
        source: the origin of the numbers, for the report.
    """

    curves: Mapping[str, Curve]
    weights: Mapping[str, float] = field(default_factory=lambda: LEFT_AFTER["short"])
    known_to: Mapping[str, float] = field(default_factory=dict)
    source: str = "measured"

    @classmethod
    def after(cls, healing: Healing, curves: Mapping[str, Curve], source: str = "measured") -> Sensitivity:
        """Combine curves from before healing with the part of a cost that this healing leaves."""
        return cls(curves=curves, weights=LEFT_AFTER[healing], known_to=KNOWN_TO[healing], source=source)

    def cost(self, axis: str, removed: float) -> float:
        """Estimate the cost of removing this fraction of an axis, after healing.

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
    """Sort a curve, start it at (0, 0) and make its costs never fall, so that noise does not make removal look free.

    Of several costs of one fraction the highest counts; removing nothing costs nothing, whatever was measured.
    """
    best = 0.0
    points = {0.0: 0.0}
    for removed, cost in sorted(curve):
        if removed > 0:
            points[removed] = best = max(best, cost)
    return tuple(points.items())


def interpolate(curve: Curve, at: float) -> float:
    """Interpolate a monotone curve linearly; beyond its end, continue with twice the last slope."""
    places = [point[0] for point in curve]
    index = bisect_right(places, at)
    if index < len(curve):
        (x0, y0), (x1, y1) = curve[index - 1], curve[index]
        return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    (x0, y0), (x1, y1) = list(pairwise(curve))[-1]
    return y1 + 2 * (y1 - y0) / (x1 - x0) * (at - x1)


@cache
def _tables() -> tuple[dict[str, object], ...]:
    """Read the shipped tables."""
    text = files("minigpt.planning").joinpath("sensitivity.json").read_text("utf-8")
    return tuple(load_json(text)["parents"])


def shipped(model_type: str, hidden_size: int, shape: Shape, healing: Healing) -> Sensitivity | None:
    """Return the shipped sensitivity of a parent of exactly this family and shape; None if there is none."""
    key = [model_type, hidden_size, shape.layers, shape.intermediate_size, shape.kv_groups, shape.vocab_size]
    for table in _tables():
        if table["parent"] == key:
            curves = {axis: tuple((x, y) for x, y in points) for axis, points in table["curves"].items()}  # type: ignore[attr-defined]
            return Sensitivity.after(healing, curves, str(table["source"]))
    return None
