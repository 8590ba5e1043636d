"""Run a sweep: what all points share once, then point by point, each whole on disk before the next begins."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from minigpt import __version__, locks, report
from minigpt.domain.config import resolve_domain
from minigpt.errors import MiniGPTError, PlanError, UnsupportedModel
from minigpt.evaluation import ItemScores, load_scores, save_scores
from minigpt.files import file_sha256, fingerprint, read_json, write_json, write_jsonl
from minigpt.machine import device_name, versions
from minigpt.pipeline.budget import check_target
from minigpt.pipeline.controls import Controls
from minigpt.pipeline.finish import build_report
from minigpt.pipeline.groundwork import Groundwork, lay_groundwork, read
from minigpt.pipeline.numbering import numbered, weigh
from minigpt.pipeline.outlook import Sizes, sizes_of
from minigpt.pipeline.paper_form import paper_form_report
from minigpt.pipeline.plan import DOMAIN, STATISTICS
from minigpt.pipeline.run import Run, load_parent, resolve_run
from minigpt.pipeline.specialist import Specialist, specialize
from minigpt.pipeline.stages import GROUND
from minigpt.pipeline.workspace import PATIENCE, PRIVATE, Workspace
from minigpt.progress import SILENT, Reporter
from minigpt.progress.pieces import Pieces, Planned
from minigpt.recipes import leave
from minigpt.results import BuildReport, StageName
from minigpt.sweep import points as points_on_disk
from minigpt.sweep.cells import FinishedPoint, cells_of, pareto_of, row_of, scores_of
from minigpt.sweep.options import Point, SweepOptions
from minigpt.sweep.outlook import (
    crew_pieces,
    ground_name,
    pieces_of,
    point_name,
    point_run,
    rows_of_point,
    sharing,
    sizes_at,
)
from minigpt.sweep.recipe import sweep_files
from minigpt.sweep.records import DomainSweep, Row, SweepReport
from minigpt.transformer import stats
from minigpt.transformer.arch import shape_of
from minigpt.workers import Workers, together

POINTS = "points.jsonl"
RESULT = "sweep.json"
LOCK = ".in_use.lock"
# Name of the last piece of work of several workers: the table, the result and the pictures.
GATHERED = "results"


def sweep(options: SweepOptions, reporter: Reporter = SILENT, *, workers: Workers | None = None) -> SweepReport:
    """Build every point of `options` that is not there yet, and draw the results.

    The folder holds `points.jsonl` (a line a point, kept from earlier sweeps into the same folder), `sweep.json`,
    `recipe.yaml` (which repeats the last sweep), `index.html`, `plots/`, and for every point
    `DOMAIN/points/ID/report.json`. Models are not kept: a point is built again by `minigpt build` with its method and
    size.

    Args:
        options: what is tried.
        reporter: told about progress.
        workers: processes that share the points (None: this one builds all of them). The results do not depend on their
            number.

    Raises:
        MiniGPTError: the folder holds something else.
        Busy: another process sweeps there.
        ConfigError: pictures are wanted and matplotlib is missing.
    """
    if options.pictures:
        from minigpt.sweep.plots import need_matplotlib

        need_matplotlib()
    root = options.output_dir
    claim(root)
    with locks.hold(root / LOCK, str(root), timeout=PATIENCE):
        if workers is not None:
            pieces = (*crew_pieces(options), Planned(name=GATHERED))
            done = together("sweep", options, workers, root, pieces, reporter)
            if (done / f"{GATHERED}.json").exists():
                return read_json(root / RESULT, SweepReport)
        return gather(options, reporter)


def gather(options: SweepOptions, reporter: Reporter) -> SweepReport:
    """Build the points that are missing, in a folder that no other process writes, and draw the results."""
    root = options.output_dir
    runs = [resolve(options, name, reporter) for name in options.domains]
    leave(root, sweep_files(options, runs), reporter)
    pieces, names = Pieces(), tuple(run.domain.name for run in runs)
    domains = tuple(_sweep_domain(options, run, pieces, names) for run in runs)
    result = SweepReport(
        base_model=options.base,
        base_precision=load_parent(runs[0]).precision,
        preset=options.preset,
        healing=options.healing,
        device=device_name(runs[0].device),
        versions=versions(__version__),
        domains=domains,
    )
    if options.pictures:
        from minigpt.sweep.page import draw

        with reporter.stage("Drawing"):
            result = replace(result, files=draw(result, root))
    write_json(root / RESULT, result)
    return result


def claim(root: Path) -> None:
    """Make the folder a sweep's, unless it is something else's. What a killed claim has left is nobody's."""
    leftover = f".{POINTS}."
    others = root.is_dir() and any(not path.name.startswith(leftover) for path in root.iterdir())
    if root.exists() and (not root.is_dir() or (others and not (root / POINTS).exists())):
        raise MiniGPTError(f"{root} is not empty and holds no sweep. Choose another --output-dir.")
    if not (root / POINTS).exists():
        write_jsonl(root / POINTS, ())


def resolve(options: SweepOptions, name: str, reporter: Reporter, *, waits: bool = False) -> Run:
    """Resolve the run that the points of a domain share; its steps go to `DOMAIN/shared`.

    Args:
        options: options of the sweep.
        name: the domain.
        reporter: told about progress.
        waits: whether other processes work on the same domain.
    """
    domain = resolve_domain(name, online=options.online)
    shared = Workspace(root=options.output_dir / domain.name / "shared", reporter=reporter, waits=waits)
    shared.work.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # the folder is another user's
        shared.work.chmod(PRIVATE)  # it holds the text
    run = resolve_run(name, options.build_options(name), reporter, folder=shared.root, shared=shared)
    return replace(run, workspace=shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The common ground of a domain's points.

    Attributes:
        run: the run of which each point is a variation.
        groundwork: text, parent and controls.
        key: fingerprint of all of it.
        sizes: what the work of a point follows from.
        pieces: the pieces of the sweep that this process builds.
        foretells: whether this process builds all of them, so that it can say what is left.
        points: the points of the domain in their order.
    """

    run: Run
    groundwork: Groundwork
    key: str
    sizes: Sizes
    pieces: Pieces
    foretells: bool
    points: tuple[Point, ...]


def lay_ground(options: SweepOptions, run: Run, pieces: Pieces | None = None, names: Sequence[str] = ()) -> Ground:
    """Read the text of a domain, measure its parent, and train the controls.

    Args:
        options: options of the sweep.
        run: the run of the domain.
        pieces: the pieces of the sweep, which learn their work here (None: this process does some of them only).
        names: names of all domains.
    """
    run = numbered(run, GROUND, pieces)
    pieces = pieces or Pieces()
    with pieces.run(ground_name(run.domain.name), run.reporter):
        parent = load_parent(run)
        corpora, suite = read(run)
        sizes = sizes_of(run, parent, suite)
        if names:
            weigh(run, GROUND, sizes)
            pieces.plan(pieces_of(options, names, run, sizes))
        ground = lay_groundwork(run, corpora, suite, parent, trains=options.healing != "none")
    key = fingerprint(
        ground.controls.source.key, ground.text.key, ground.suite, run.settings, run.device, options.dtype
    )
    return Ground(
        run=run,
        groundwork=ground,
        key=key,
        sizes=sizes,
        pieces=pieces,
        foretells=bool(names),
        points=options.points,
    )


def _sweep_domain(options: SweepOptions, run: Run, pieces: Pieces, names: Sequence[str]) -> DomainSweep:
    shared = lay_ground(options, run, pieces, names)
    ground = shared.groundwork
    for point in options.points:
        if points_on_disk.finished(_home(run, point), fingerprint(shared.key, point)) is not None:
            pieces.skip(point_name(run.domain.name, point))
    points: list[FinishedPoint] = []
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    path = options.output_dir / POINTS
    for point in run.reporter.track(options.points, title=f"Points of {run.domain.name}"):
        try:
            finished = finish_point(shared, point)
        except (PlanError, UnsupportedModel) as error:
            skipped[point.id] = str(error)
            run.reporter.note(f"{point.id} skipped: {error}")
            continue
        points.append(finished)
        where = _home(run, point).report.relative_to(options.output_dir).as_posix()
        rows.append(row_of(finished, ground.controls.parent, key=shared.key, path=where))
        points_on_disk.record(path, rows[-1], run.reporter)
    return replace(_summarize(options, run, ground.controls, points), rows=tuple(rows), skipped=skipped)


def _home(run: Run, point: Point) -> Workspace:
    """Return the workspace of a point."""
    return Workspace(root=run.common.root.parent / "points" / point.id, reporter=run.reporter)


def finish_point(shared: Ground, point: Point) -> FinishedPoint:
    """Read the point from its folder, or build it there.

    Raises:
        PlanError: the method cannot reach the size.
        UnsupportedModel: the method cannot prune the parent.
    """
    run, key = shared.run, fingerprint(shared.key, point)
    workspace = _home(run, point)
    if (result := points_on_disk.finished(workspace, key)) is None:
        result = _build_point(shared, point, workspace, key)
    shutil.rmtree(workspace.work, ignore_errors=True)
    scores = {stage: load_scores(_items_file(workspace, stage)) for stage in _stages_of(point)}
    return FinishedPoint(point=point, report=result, items=scores)


def _build_point(shared: Ground, point: Point, workspace: Workspace, key: str) -> BuildReport:
    """Build a point in its folder, and predict what is left of the sweep from its time."""
    ground, rows = shared.groundwork, rows_of_point(point, shares_rounds=point.id in sharing(shared.points))
    run = numbered(point_run(replace(shared.run, workspace=workspace), point), rows, shared.pieces)
    if shared.foretells:
        weigh(run, rows, sizes_at(shared.sizes, point))
    with shared.pieces.run(point_name(run.domain.name, point), run.reporter):
        check_target(run, ground.parent)
        with shared.run.reporter.stage(f"Point {shared.points.index(point) + 1} of {len(shared.points)}: {point.id}"):
            specialist = specialize(run, ground, healing=point.healing != "none")
        for stage, items in zip(_stages_of(point), specialist.scores, strict=True):
            save_scores(items, _items_file(workspace, stage))
        result = _report(run, ground, specialist, key)
        write_json(workspace.root / "plan.json", specialist.plan)
        report.save(result, workspace.report)
        points_on_disk.seal(workspace, key)
    return result


def _stages_of(point: Point) -> tuple[StageName, ...]:
    """Return the stages that are measured at a point."""
    return ("pruned",) if point.healing == "none" else ("pruned", "healed")


def _report(run: Run, ground: Groundwork, specialist: Specialist, key: str) -> BuildReport:
    """The report of a point, whose model is still there."""
    from transformers import AutoConfig

    stages = (*ground.controls.stages, *specialist.stages)
    if specialist.paper_form is not None:
        return paper_form_report(run, ground, stages, specialist.paper_form, key)
    after = shape_of(AutoConfig.from_pretrained(specialist.model))
    vocabulary = file_sha256(specialist.model / "tokenizer.json")
    result = build_report(run, ground, specialist.plan, stages, key, after=after, vocabulary=vocabulary)
    return replace(result, rounds=specialist.rounds)


def _items_file(workspace: Workspace, stage: StageName) -> Path:
    return workspace.root / f"items_{stage}.json"


def _summarize(options: SweepOptions, run: Run, controls: Controls, points: list[FinishedPoint]) -> DomainSweep:
    """Compare the points of a domain with each other and with the controls."""
    references: dict[StageName, ItemScores] = {"parent": controls.parent}
    if controls.tuned is not None:
        references["parent_tuned"] = controls.tuned
    cells = cells_of(points, controls.parent)
    last: StageName = "pruned" if options.healing == "none" else "healed"
    saved = run.common.work / DOMAIN / STATISTICS
    statistics = stats.load(saved) if saved.exists() else None
    return DomainSweep(
        domain=run.domain.name,
        parameters=controls.stages[0].parameters,
        controls=tuple(
            score
            for name, items in references.items()
            for score in scores_of(name, [items], None if name == "parent" else controls.parent)
        ),
        cells=cells,
        pareto=pareto_of(cells, points, references, stage=last),
        block_influence=tuple(statistics.layer_cos.tolist()) if statistics else (),
        angular=tuple(tuple(line) for line in statistics.angular.tolist()) if statistics else (),
    )
