"""Outlook of a sweep: its pieces, which are the common ground of each domain and the points, and their work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from minigpt.methods import method_named
from minigpt.methods.table import ROUNDS
from minigpt.pipeline.outlook import Sizes
from minigpt.pipeline.run import Run
from minigpt.pipeline.stages import CUT, FORM, GROUND, HEAL, PLAN, ROUNDS_ROW, Row, works_of
from minigpt.progress.pieces import Planned
from minigpt.sweep.options import Point, SweepOptions


def ground_name(domain: str) -> str:
    """Return the name of the piece that all points of a domain share."""
    return f"{domain} ground"


def point_name(domain: str, point: Point) -> str:
    """Return the name of a point among those of all domains."""
    return f"{domain} {point.id}"


def rows_of_point(point: Point, *, shares_rounds: bool = False) -> tuple[Row, ...]:
    """Return the rows of the table that a point goes through.

    Args:
        point: the point.
        shares_rounds: whether the rounds of its method are there already.
    """
    if point.masked:
        return FORM
    plan = tuple(row for row in PLAN if not (shares_rounds and row is ROUNDS_ROW))
    return (*plan, *CUT, *(() if point.healing == "none" else HEAL))


def sharing(points: Sequence[Point]) -> frozenset[str]:
    """Return the points of methods with rounds whose rounds an earlier point has run: the last one of that method.

    Args:
        points: the points of a domain in their order.
    """
    last: dict[str, int] = {}
    shared: set[str] = set()
    for point in points:
        if not point.masked and ROUNDS in method_named(point.method).needs:
            if last.get(point.method) == point.seed:
                shared.add(point.id)
            last[point.method] = point.seed
    return frozenset(shared)


def point_run(run: Run, point: Point) -> Run:
    """Return the run of a domain with the options of a point."""
    options = replace(run.options, method=point.method, target_size=point.size, seed=point.seed, masked=point.masked)
    return replace(run, options=options)


def sizes_at(sizes: Sizes, point: Point) -> Sizes:
    """Return the sizes of a point: its share of the parent's operations, and whole evaluations before healing.

    Args:
        sizes: of the domain.
        point: the point.
    """
    evaluation = replace(sizes.settings.evaluation, pruned_share=1.0)
    return replace(sizes, student=sizes.parent * point.size, settings=replace(sizes.settings, evaluation=evaluation))


def pieces_of(options: SweepOptions, domains: Sequence[str], run: Run, sizes: Sizes) -> list[Planned]:
    """Return all pieces of a sweep in their order, with the work that they have if all domains are like one.

    Args:
        options: options of the sweep.
        domains: names of all domains.
        run: the run of the domain that is known.
        sizes: its sizes.
    """
    pieces: list[Planned] = []
    ground = works_of(run, GROUND, sizes)
    shared = sharing(options.points)
    for domain in domains:
        pieces.append(Planned(name=ground_name(domain), kinds=("ground",), works=tuple(ground.values())))
        for point in options.points:
            rows = rows_of_point(point, shares_rounds=point.id in shared)
            works = works_of(point_run(run, point), rows, sizes_at(sizes, point))
            pieces.append(Planned(name=point_name(domain, point), kinds=kinds_of(point), works=tuple(works.values())))
    return pieces


def kinds_of(point: Point) -> tuple[str, ...]:
    """Return the kinds by which the time of a point follows from that of others, the nearest first."""
    return (point.method, "point")


def crew_pieces(options: SweepOptions) -> list[Planned]:
    """Return the points as several workers take them; their work is not known before one of them reads the text."""
    return [
        Planned(name=point_name(Path(domain).stem, point), kinds=kinds_of(point))
        for domain in options.domains
        for point in options.points
    ]
