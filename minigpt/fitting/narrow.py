"""Rehearsals that narrow a limit down: one on its right side, one on its wrong side, and the next between them.

Nothing is searched that covers a shape that was too slow or too large, nor, once a shape fits, anything that does not
cover it: a shape that is nowhere smaller is never faster, whatever the fitted costs say. Every rehearsal also joins the
samples that the costs are fitted to, because a search finds just those shapes that the costs flatter.

What counts of a rehearsal is the ratio of its speed to that of the uncut parent beside it. The parent's own tokens a
second, which limits in tokens a second need, are the median over all rehearsals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from minigpt.errors import PlanError
from minigpt.fitting.constraints import Constraint
from minigpt.fitting.costmodel import corrected, fit_costs
from minigpt.fitting.profile import Profile, Sample, at_speed, usual_speed, work_of
from minigpt.fitting.rehearse import Stage
from minigpt.fitting.search import Point, Space, alternatives, rank, search
from minigpt.progress import Reporter

# Most rehearsals of a fit.
ROUNDS = 6
# How many times a rehearsal counts in the fit of the costs: it is nearer to what is searched than the first samples.
TRUST = 3
# Share of a limit by which a rehearsed model may keep it more than it must before a better one is looked for.
NEAR = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """The end of the rehearsals.

    Attributes:
        best: of all rehearsed models that keep the limits, the one with the least expected cost; the nearest if none
            does. Speed and memory are the rehearsed ones.
        sample: its rehearsal.
        others: the other rehearsed models and the nearest alternatives, with why each was not chosen.
        constraints: the limits in bytes and tokens a second, by the parent's usual speed.
        rehearsals: number of rehearsals.
        fits: whether the best keeps the limits.
    """

    best: Point
    sample: Sample
    others: tuple[tuple[Point, str], ...]
    constraints: tuple[Constraint, ...]
    rehearsals: int
    fits: bool


def narrowed(stage: Stage, space: Space, profile: Profile, reporter: Reporter) -> Narrowed:
    """Rehearse what the search proposes, correct its costs by that, and search again until a model is near the limits.

    Args:
        stage: where models are rehearsed.
        space: what to search, with constraints as they were written.
        profile: what the costs of the space were fitted to.
        reporter: told about every rehearsal.

    Raises:
        PlanError: nothing fits, and no rehearsed model does.
    """
    tried: list[Sample] = []
    while len(tried) < ROUNDS:
        proposal = _proposal(space_after(space, profile, tried), tried)
        if proposal is None:
            break
        tried += stage.time(proposal.precision, (proposal.shape,))
        now = space_after(space, profile, tried)
        point = rehearsed(now, tried[-1])
        used = usage(now.constraints, point)
        reporter.note(f"Rehearsal {len(tried)}: {described(tried[-1])}, {used:.0%} of the limit")
        if 1 / (1 + NEAR) <= used <= 1 or (used <= 1 and point.shape == space.parent):
            break
    return _ended(space_after(space, profile, tried), tried)


def space_after(space: Space, profile: Profile, tried: Sequence[Sample]) -> Space:
    """Return the space as rehearsals leave it: limits by the parent's usual speed, and costs that give what was shown.

    Args:
        space: the space before any rehearsal.
        profile: what its costs were fitted to.
        tried: the rehearsals so far.
    """
    first = first_precision(space)
    parent = usual_speed(tried) or space.models[first].parent
    constraints = tuple(replace(item, amount=item.limit(parent), relative=False) for item in space.constraints)
    limit = next((item.amount for item in constraints if item.kind == "speed"), None)
    models = dict(space.models)
    for name, model in space.models.items():
        samples = [sample for sample in at_speed(tried, parent) if sample.precision == name]
        if name == first and samples:
            samples.insert(0, whole_sample(space, name, parent))
        if samples:
            model = fit_costs(
                profile.with_samples(*(sample for sample in tried for _ in range(TRUST))), space.engine.name, name
            )
        models[name] = replace(corrected(model, samples, limit), parent=parent)
    now = replace(space, constraints=constraints, models=models)
    large = [(sample.precision, sample.shape) for sample in tried if usage(constraints, rehearsed(now, sample)) > 1]
    return replace(now, excluded=large)


def above(space: Space, small: Point) -> Space:
    """Return the part of a space that covers a point, in its precision: everything there removes less."""
    limits, shape = space.limits, small.shape
    limits = replace(
        limits,
        layers=tuple(number for number in limits.layers if number >= shape.layers),
        kv_groups=tuple(number for number in limits.kv_groups if number >= shape.kv_groups),
        experts=tuple(number for number in limits.experts if number >= shape.experts),
        neurons=(shape.intermediate_size, limits.neurons[1]),
        vocab=(shape.vocab_size, limits.vocab[1]),
    )
    return replace(space, limits=limits, models={small.precision: space.models[small.precision]})


def first_precision(space: Space) -> str:
    """Return the precision of the parent that multiples of its speed refer to: the first that was measured."""
    return next((name for name in space.engine.timed if name in space.models), next(iter(space.models)))


def whole_sample(space: Space, precision: str, parent: float) -> Sample:
    """Return the uncut parent as a sample: its ratio to itself is known without measuring."""
    return Sample(
        runtime=space.engine.name,
        precision=precision,
        shape=space.parent,
        work=work_of(space.sizes, space.parent, space.engine.layouts[precision]),
        decode=parent,
        parent_decode=parent,
    )


def rehearsed(space: Space, sample: Sample) -> Point:
    """Return a point with the speed and memory that its rehearsal showed.

    Args:
        space: the space after the rehearsal; the speed is stated at its speed of the parent.
        sample: the rehearsal.
    """
    point = space.point(sample.precision, sample.shape)
    (stated,) = at_speed([sample], space.models[sample.precision].parent)
    return replace(point, speed=stated.decode, ram=point.ram if sample.memory is None else sample.memory)


def usage(constraints: Sequence[Constraint], point: Point) -> float:
    """Return the share of the tightest limit that a point uses: above 1 it does not fit."""
    shares = []
    for constraint in constraints:
        value = point.value(constraint.kind) or float("nan")
        shares.append(constraint.amount / value if constraint.kind == "speed" else value / constraint.amount)
    return max(shares)


def described(sample: Sample) -> str:
    """Say how fast a rehearsed model was: "2.06x parent (2.02 to 2.11), 339.1 tokens/s"."""
    speed = f"{sample.decode:.1f} tokens/s"
    if sample.ratio is None:
        return speed
    ratio = sample.ratio
    return f"{ratio.value:.2f}x parent ({ratio.low:.2f} to {ratio.high:.2f}), {speed}"


def _proposal(space: Space, tried: Sequence[Sample]) -> Point | None:
    """Search for what to rehearse next: it covers what is known to fit. None if there is nothing.

    Raises:
        PlanError: nothing fits, and nothing that was rehearsed does.
    """
    fitting = _fitting(space, tried)
    known = {(sample.precision, sample.shape) for sample in tried}
    try:
        proposal = search(above(space, min(fitting, key=rank)) if fitting else space).best
    except PlanError:
        least = space.point(first_precision(space), space.limits.smallest)
        if fitting:
            return None
        if not tried or (least.precision, least.shape) in known:
            raise
        proposal = least  # what the costs say is no proof
    return None if (proposal.precision, proposal.shape) in known else proposal


def _fitting(space: Space, tried: Sequence[Sample]) -> list[Point]:
    """List the rehearsed models that keep every limit."""
    points = (rehearsed(space, sample) for sample in tried)
    return [point for point in points if usage(space.constraints, point) <= 1]


def _ended(space: Space, tried: Sequence[Sample]) -> Narrowed:
    """Take the rehearsed model with the least expected cost that keeps the limits, or the nearest to them."""
    points = {rehearsed(space, sample): sample for sample in tried}
    fitting = _fitting(space, tried)
    best = min(fitting, key=rank) if fitting else min(points, key=lambda point: usage(space.constraints, point))
    others = [
        (point, f"rehearsed, {described(sample)}: {_why_not(space, point)}")
        for point, sample in points.items()
        if point != best
    ]
    return Narrowed(
        best=best,
        sample=points[best],
        others=(*others, *((_known(space, point), reason) for point, reason in alternatives(space, best))),
        constraints=tuple(space.constraints),
        rehearsals=len(tried),
        fits=bool(fitting),
    )


def _known(space: Space, point: Point) -> Point:
    """Put the measured speed of the uncut parent in place of the expected one: costs are bent near the limits only."""
    if (point.precision, point.shape) != (first_precision(space), space.parent):
        return point
    return replace(point, speed=space.models[point.precision].parent)


def _why_not(space: Space, point: Point) -> str:
    """Say why a rehearsed model was not taken."""
    return "removes more" if usage(space.constraints, point) <= 1 else "does not fit"
