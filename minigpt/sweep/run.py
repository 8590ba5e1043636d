"""Run a sweep: what all points share once, then point by point, each whole on disk before the next begins."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from minigpt import __version__, report
from minigpt.domain.config import domain_of
from minigpt.errors import MiniGPTError, PlanError, UnsupportedModel
from minigpt.evaluation import ItemScores, load_scores, save_scores
from minigpt.files import file_sha256, fingerprint, read_jsonl, to_plain, write_json, write_jsonl
from minigpt.machine import device_name, versions
from minigpt.pipeline.build import Measured, Specialist, context_for, measured_controls, pruned_and_healed
from minigpt.pipeline.context import Context
from minigpt.pipeline.finish import build_report
from minigpt.pipeline.masked import masked_report
from minigpt.pipeline.plan import STATISTICS
from minigpt.pipeline.workspace import Workspace
from minigpt.planning.budget import check_target
from minigpt.progress import SILENT, Reporter
from minigpt.sweep.cells import Built, cells_of, pareto_of, row_of, scores_of
from minigpt.sweep.options import Point, SweepOptions
from minigpt.sweep.records import Row, SweepReport, Swept
from minigpt.transformer import stats
from minigpt.transformer.arch import shape_of
from minigpt.types import BuildReport, StageName

POINTS = "points.jsonl"
RESULT = "sweep.json"


def sweep(options: SweepOptions, reporter: Reporter = SILENT) -> SweepReport:
    """Build every point of `options` that is not there yet, and draw what was found.

    The folder holds `points.jsonl` (a line a point, kept from earlier sweeps into the same folder), `sweep.json`,
    `index.html`, `plots/`, and for every point `DOMAIN/points/ID/report.json`. Models are not kept: a point is built
    again by `minigpt build` with its method and size.

    Raises:
        MiniGPTError: the folder holds something else.
        ConfigError: pictures are wanted and matplotlib is missing.
    """
    if options.pictures:
        from minigpt.sweep.plots import need_matplotlib

        need_matplotlib()
    root = options.output_dir
    _claim(root)
    contexts = [_context(options, name, reporter) for name in options.domains]
    swept = tuple(_sweep_domain(options, context) for context in contexts)
    first = contexts[0]
    found = SweepReport(
        base_model=options.base,
        base_precision=first.parent.precision,
        preset=options.preset,
        healing=options.healing,
        device=device_name(first.device),
        versions=versions(__version__),
        domains=swept,
    )
    if options.pictures:
        from minigpt.sweep.page import draw

        with reporter.stage("Drawing"):
            found = replace(found, files=draw(found, root))
    write_json(root / RESULT, found)
    return found


def _claim(root: Path) -> None:
    """Make the folder a sweep's, unless it is something else's."""
    if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not (root / POINTS).exists())):
        raise MiniGPTError(f"{root} is not empty and holds no sweep. Choose another --output-dir.")
    if not (root / POINTS).exists():
        write_jsonl(root / POINTS, ())


def _context(options: SweepOptions, name: str, reporter: Reporter) -> Context:
    """What the points of a domain share; its stages go to `DOMAIN/shared`."""
    domain = domain_of(name, online=options.online)
    shared = Workspace(root=options.output_dir / domain.name / "shared")
    return replace(context_for(name, options.build_options(name), shared, reporter), shared=shared)


def _sweep_domain(options: SweepOptions, context: Context) -> Swept:
    controls = measured_controls(context)
    key = fingerprint(
        controls.source_key, context.text_key, context.suite, context.settings, context.device, options.dtype
    )
    builds: list[Built] = []
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    path = options.output_dir / POINTS
    for point in context.reporter.track(options.points, title=f"Points of {context.domain.name}"):
        try:
            built = _built(context, controls, point, key)
        except (PlanError, UnsupportedModel) as error:
            skipped[point.id] = str(error)
            context.reporter.note(f"{point.id} skipped: {error}")
            continue
        builds.append(built)
        where = Workspace(root=_folder(context, point)).report.relative_to(options.output_dir).as_posix()
        rows.append(row_of(built, controls.parent, key=key, path=where))
        _record(path, rows[-1])
    return replace(_swept(options, context, controls, builds), rows=tuple(rows), skipped=skipped)


def _folder(context: Context, point: Point) -> Path:
    return context.common.root.parent / "points" / point.id


def _built(context: Context, controls: Measured, point: Point, key: str) -> Built:
    """The point from its folder, or built into it."""
    workspace = Workspace(root=_folder(context, point))
    chosen = replace(context.options, method=point.method, target_size=point.size, seed=point.seed, masked=point.masked)
    own = replace(context, workspace=workspace, options=chosen)
    mine = fingerprint(key, point)
    stages: tuple[StageName, ...] = ("pruned",) if point.healing == "none" else ("pruned", "healed")
    if (done := _finished(workspace, mine)) is None:
        check_target(own)
        with context.reporter.stage(point.id):
            made = pruned_and_healed(own, controls, healing=point.healing != "none")
        for stage, items in zip(stages, made.scores, strict=True):
            save_scores(items, _items_file(workspace, stage))
        done = _reported(own, controls, made, mine)
        write_json(workspace.root / "plan.json", made.plan)
        report.save(done, workspace.report)
    shutil.rmtree(workspace.work, ignore_errors=True)
    found = {stage: load_scores(_items_file(workspace, stage)) for stage in stages}
    return Built(point=point, report=done, items=found)


def _reported(context: Context, controls: Measured, made: Specialist, key: str) -> BuildReport:
    """The report of a point, whose model is still there."""
    from transformers import AutoConfig

    if made.form is not None:
        return masked_report(context, [*controls.stages, *made.stages], made.form, made.model, key)
    after = shape_of(AutoConfig.from_pretrained(made.model))
    vocabulary = file_sha256(made.model / "tokenizer.json")
    return build_report(context, made.plan, [*controls.stages, *made.stages], key, after=after, vocabulary=vocabulary)


def _items_file(workspace: Workspace, stage: StageName) -> Path:
    return workspace.root / f"items_{stage}.json"


def _finished(workspace: Workspace, key: str) -> BuildReport | None:
    """The report of the same point, if it is done; one made from other inputs does not count."""
    if not workspace.report.exists():
        return None
    try:
        found = report.load(workspace.report)
    except MiniGPTError:
        return None
    return found if found.fingerprints.get("build") == key else None


def _record(path: Path, row: Row) -> None:
    """Put a line into points.jsonl: in place of the same point's, without those of the domain's other inputs."""
    kept = [
        line
        for line in read_jsonl(path)
        if line["domain"] != row.domain or (line["key"] == row.key and line["id"] != row.id)
    ]
    write_jsonl(path, [*kept, to_plain(row)])


def _swept(options: SweepOptions, context: Context, controls: Measured, builds: list[Built]) -> Swept:
    """What the points of a domain say together."""
    references: dict[StageName, ItemScores] = {"parent": controls.parent}
    if controls.tuned is not None:
        references["parent_tuned"] = controls.tuned
    cells = cells_of(builds, controls.parent)
    last: StageName = "pruned" if options.healing == "none" else "healed"
    found = context.common.work / "statistics" / STATISTICS
    shown = stats.load(found) if found.exists() else None
    return Swept(
        domain=context.domain.name,
        parameters=controls.stages[0].parameters,
        controls=tuple(
            score
            for name, items in references.items()
            for score in scores_of(name, [items], None if name == "parent" else controls.parent)
        ),
        cells=cells,
        pareto=pareto_of(cells, builds, references, stage=last),
        block_influence=tuple(shown.layer_cos.tolist()) if shown else (),
        angular=tuple(tuple(line) for line in shown.angular.tolist()) if shown else (),
    )
