"""One worker of a sweep: it pulls points, and whoever finds all of them done gathers the results."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from minigpt.errors import PlanError, UnsupportedModel
from minigpt.files import read_json
from minigpt.progress import Reporter
from minigpt.sweep.options import Point, SweepOptions
from minigpt.sweep.outlook import point_name
from minigpt.sweep.run import GATHERED, Ground, finish_point, gather, lay_ground, resolve
from minigpt.workers.pieces import Job, claim_of, pull


def work(path: Path, done: Path, worker: str, reporter: Reporter) -> None:
    """Build points until all are built, and gather the results.

    Args:
        path: file of the options.
        done: folder of markers.
        worker: name of this worker.
        reporter: told about progress.
    """
    options = read_json(path, SweepOptions)
    grounds: dict[str, Ground] = {}

    def build(name: str, point: Point) -> float | None:
        if name not in grounds:
            grounds.clear()  # one domain's text in memory is enough
            grounds[name] = lay_ground(options, resolve(options, name, reporter, waits=True))
        try:
            finish_point(grounds[name], point)
        except (PlanError, UnsupportedModel) as error:  # gathering says so of the point
            reporter.note(f"{point.id} skipped: {error}")
        ground = grounds[name]
        return ground.pieces.seconds_of(point_name(ground.run.domain.name, point))

    jobs = []
    for name in options.domains:
        for point in options.points:
            piece = point_name(Path(name).stem, point)
            jobs.append(Job(name=piece, lock=claim_of(done, piece), run=partial(build, name, point)))
    pull(jobs, done, worker)
    last = Job(name=GATHERED, lock=claim_of(done, GATHERED), run=lambda: _gather(options, reporter))
    pull([last], done, worker)


def _gather(options: SweepOptions, reporter: Reporter) -> None:
    """Read all points, which are there, and draw the results."""
    started = time.monotonic()
    gather(options, reporter)
    reporter.note(f"Gathered in {time.monotonic() - started:.1f} s.")
