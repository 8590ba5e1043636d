"""Outlook of a sweep: its pieces, their work by hand, and what a worker says of the time of a point."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt.progress import SILENT
from minigpt.progress.pieces import Pieces
from minigpt.sweep.options import Point, SweepOptions
from minigpt.sweep.outlook import crew_pieces, ground_name, pieces_of, point_name, rows_of_point, sharing
from minigpt.sweep.run import finish_point, lay_ground, resolve
from tests.support.worlds import World
from tests.sweep.test_run import options

pytestmark = pytest.mark.usefixtures("home")


def test_sizes_of_a_method_share_its_rounds_unless_another_seed_came_between() -> None:
    def ids(seeds: int) -> list[str]:
        points = [
            Point(method=method, size=size, seed=seed, healing="preset")
            for size in (0.9, 0.5)
            for method in ("lottery", "flap")
            for seed in range(seeds)
        ]
        return sorted(sharing(points))

    assert ids(1) == ["lottery-0.5-s0-preset"]
    assert ids(2) == []
    first = Point(method="lottery", size=0.9, seed=0, healing="none")
    assert [row.name for row in rows_of_point(first)] == ["rounds", "plan", "pruned", "measured_pruned"]
    assert "rounds" not in [row.name for row in rows_of_point(first, shares_rounds=True)]


def test_a_sweep_predicts_points_by_their_work_and_by_those_that_are_finished(world: World) -> None:
    asked = options(world, "predicted", sizes=(0.9, 0.8), healing="preset")
    pieces, names = Pieces(), ("words", "other")
    ground = lay_ground(asked, resolve(asked, str(world.domain), SILENT), pieces, names)
    planned = {piece.name: piece for piece in pieces_of(asked, names, ground.run, ground.sizes)}
    assert list(planned) == [
        name for domain in names for name in (ground_name(domain), *(point_name(domain, one) for one in asked.points))
    ]
    large, small = (planned[f"words flap-{size}-s0-preset"] for size in ("0.9", "0.8"))
    parent, tokens = ground.sizes.parent, ground.sizes.tokens
    # Two whole evaluations of the specialist, and two steps of healing, of which nothing is distilled or all of it is.
    step = max(ground.run.settings.heal.tokens_per_step, ground.run.settings.heal.window)
    difference = (0.9 - 0.8) * parent * (2 * tokens + 2 * 3 * step)
    assert large.weight - small.weight == pytest.approx(difference)
    assert planned["other flap-0.9-s0-preset"].works == large.works
    finish_point(ground, asked.points[0])
    first = pieces.seconds_of("words flap-0.9-s0-preset")
    assert first is not None
    assert pieces.left() is not None, "the ground ran whole, so another domain's is known, too"
    ahead = sum(piece.weight for name, piece in planned.items() if "ground" not in name) - large.weight
    grounds = pieces.seconds_of("words ground")
    assert grounds is not None
    assert pieces.left() == pytest.approx(first * ahead / large.weight + grounds)
    again = lay_ground(asked, resolve(asked, str(world.domain), SILENT))
    finish_point(again, asked.points[0])
    assert not again.foretells
    assert again.pieces.seconds_of("words flap-0.9-s0-preset") is None, "it was there, and says nothing"


def test_workers_name_their_pieces_as_the_markers_do() -> None:
    asked = SweepOptions(domains=("a/law.yaml", "medical"), methods=("flap",), sizes=(0.9,), output_dir=Path("x"))
    assert [piece.name for piece in crew_pieces(asked)] == ["law flap-0.9-s0-none", "medical flap-0.9-s0-none"]
    assert crew_pieces(asked)[0].kinds == ("flap", "point")
