"""The story of a build: from a domain's name to a smaller specialist with a report, in steps that can resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from minigpt import assets, report
from minigpt.corpus.coverage import coverage_records
from minigpt.errors import ConfigError, GateFailed, MiniGPTError
from minigpt.files import is_json, write_json
from minigpt.integrity import SUMS, read_sums
from minigpt.models import catalog
from minigpt.pipeline.budget import check_target
from minigpt.pipeline.conditional import add_conditional, check_conditional, has_conditional
from minigpt.pipeline.coverage import coverage_of
from minigpt.pipeline.delta import make_delta
from minigpt.pipeline.domains import checked_domains
from minigpt.pipeline.finish import finish, register_and_slim, write_recipe
from minigpt.pipeline.groundwork import lay_groundwork, read, training_text_and_tuned_parent
from minigpt.pipeline.healing import check_healing
from minigpt.pipeline.numbering import needs_of, numbered, set_out, weigh
from minigpt.pipeline.options import BuildOptions
from minigpt.pipeline.outlook import sizes_of
from minigpt.pipeline.paper_form import paper_form_report
from minigpt.pipeline.plan import plan_pruning
from minigpt.pipeline.recipe import changes
from minigpt.pipeline.rounds import check_rounds, ticket_of
from minigpt.pipeline.run import Run, build_key, deciding_options, load_parent, resolve_run
from minigpt.pipeline.settings import settings_for
from minigpt.pipeline.source import source_of
from minigpt.pipeline.specialist import specialize
from minigpt.pipeline.stages import CONDITIONAL, planning_rows, rows_of
from minigpt.pipeline.summary import PlanSummary, summarize_plan
from minigpt.pipeline.text import planning_text, training_text
from minigpt.pipeline.workspace import State, Workspace, finished
from minigpt.progress import SILENT, Reporter
from minigpt.progress.stages import step
from minigpt.recipes import RECIPE
from minigpt.report.page import FILE_NAME as PAGE
from minigpt.report.page import write_page
from minigpt.results import BuildReport

# Options that a message about another build names, at most.
NAMED = 3


def build_specialists(options: BuildOptions, reporter: Reporter = SILENT) -> tuple[BuildReport, ...]:
    """Build a specialist for each domain of `options`; finished steps of an earlier run are reused.

    Raises:
        GateFailed: general text costs more than `keep_general` allows. The models are still written, and the error
            holds their reports.
        MiniGPTError: the build failed for any other reason; the message says what to do.
    """
    bound = settings_for(options.preset, options.overrides, keep_general=options.keep_general).keep_general
    reports = tuple(build_domain(name, options, reporter) for name in _announced(checked_domains(options), reporter))
    if bound is not None:
        try:
            for result in reports:
                report.check_gate(f"bits_per_byte@general>{bound}x", [(result.domain, result)])
        except GateFailed as error:
            error.reports = reports
            raise
    return reports


def plan_specialists(options: BuildOptions, reporter: Reporter = SILENT) -> tuple[PlanSummary, ...]:
    """Plan the pruning for each domain and stop; finished steps are kept for a later build.

    Raises:
        ConfigError: the options ask to start over, too, which would only delete.
        MiniGPTError: the folder holds a build made with other options.
    """
    names = _announced(checked_domains(options), reporter)
    return tuple(_plan_one(resolve_run(name, options, reporter)) for name in names)


def _announced(names: Sequence[str], reporter: Reporter) -> Iterator[str]:
    """Yield the domains of a build, and say the number of each where there are several."""
    for number, name in enumerate(names, 1):
        if len(names) > 1:
            reporter.note(f"Domain {number} of {len(names)}: {name}")
        yield name


def _plan_one(run: Run) -> PlanSummary:
    """Plan the pruning of one domain."""
    _refuse_foreign(run.workspace)
    if run.options.force:
        raise ConfigError("A plan deletes nothing, so that --force beside --plan-only would do nothing; leave it out.")
    with run.workspace.locked():
        _refuse_other(run, build_key(run))
        try:
            return _plan_in(run)
        finally:
            if run.workspace.is_sealed:  # beside a finished build no text may stay
                run.workspace.slim()


def _plan_in(run: Run) -> PlanSummary:
    """Plan the pruning of one domain in a folder that is locked."""
    _claim(run)
    run = numbered(run, planning_rows(run))
    parent = load_parent(run)
    _refuse_unfit(run, parent)
    check_target(run, parent)
    corpora, suite = read(run)
    sizes = sizes_of(run, parent, suite)
    weigh(run, rows_of(run), sizes)
    text = training_text(corpora, run.settings, seed=run.text_seed)
    tuned = None
    if run.settings.tuned_parent:
        text, tuned = training_text_and_tuned_parent(run, corpora, parent, trains=False)
    source = source_of(run, parent, tuned)
    planning = planning_text(corpora, run.settings)
    ticket = ticket_of(run, parent, planning, text, source)
    plan = plan_pruning(run, parent, corpora.domain.fingerprint, planning, source, ticket).plan
    coverage = coverage_records(coverage_of(corpora, suite, text))
    needs = needs_of(run, sizes)
    summary = summarize_plan(run.domain.name, parent.path, plan, coverage)
    return replace(summary, seconds_to_build=needs.seconds, disk_needed=needs.disk, disk_free=needs.free)


def build_domain(name: str, options: BuildOptions, reporter: Reporter) -> BuildReport:
    """Build one domain of `options`, unless its folder holds the finished build."""
    run = resolve_run(name, options, reporter)
    key = build_key(run)
    _refuse_foreign(run.workspace)
    # A finished build can be read from a folder that cannot be written, and while another process reads it.
    if (result := _whole(run, key)) is None:
        with run.workspace.locked():
            return _built(run, key)
    _say_finished(run, result)
    return result


def _whole(run: Run, key: str) -> BuildReport | None:
    """Return the report of this build if nothing at all is left to do; else None."""
    workspace = run.workspace
    if run.options.force or finished(workspace.work / "healed") is not None:
        return None
    if not workspace.is_sealed or workspace.damage() is not None:
        return None
    _refuse_other(run, key)
    result = report.load(workspace.report)
    return result if _has_all_forms(run, result) else None


def _say_finished(run: Run, result: BuildReport) -> None:
    """Tell the user that nothing is built, and where a price that the report does not know counts."""
    folder, price = run.workspace.root, run.options.price_per_hour
    run.reporter.note(f"{folder} is finished; --force builds it again.")
    if price is not None and (result.cost is None or result.cost.price != price):
        run.reporter.note(
            f"Its report does not know this price: minigpt open {folder} --price-per-hour "
            f"'{price.amount:g} {price.currency}' computes the money."
        )


def _has_all_forms(run: Run, result: BuildReport) -> bool:
    """Return whether a build has the conditional form, too, if its options ask for one."""
    return run.options.conditional is None or has_conditional(run, result)


def _built(run: Run, key: str) -> BuildReport:
    """Build what is missing in a folder that is locked, and return the report."""
    result = _finished(run, key)
    if result is None:
        _claim(run)
        run = numbered(run, rows_of(run))
        result = build_one(run, key)
    elif _has_all_forms(run, result):
        _say_finished(run, result)
    else:
        run = numbered(run, CONDITIONAL)
    return result if _has_all_forms(run, result) else _with_conditional(run, result, key)


def _with_conditional(run: Run, result: BuildReport, key: str) -> BuildReport:
    """Add the conditional form to a finished build, and enter it in the catalog again with its new report.

    Meanwhile what changes is not sealed, since a killed process must not make that look like damage; the model is.
    """
    run.workspace.open_for(run.workspace.report.name, RECIPE, run.workspace.conditional.name)
    result = add_conditional(run, result, *read(run))
    write_page(result, run.workspace.root / PAGE)
    run.workspace.seal(key)
    register_and_slim(run.workspace)
    return result


def _refuse_unfit(run: Run, parent: assets.Parent) -> None:
    """Refuse what the options ask of a parent that cannot have it, before text is read."""
    check_rounds(run, parent)
    check_conditional(run, parent)
    check_healing(run, parent)


def build_one(run: Run, key: str) -> BuildReport:
    """Build one specialist: text, parent, tuned parent, plan, pruning, healing, report.

    Args:
        run: the build, resolved.
        key: the build's fingerprint, of :func:`minigpt.pipeline.run.build_key`.
    """
    parent = load_parent(run)
    _refuse_unfit(run, parent)
    if run.options.delta is None:
        check_target(run, parent)
    corpora, suite = read(run)
    set_out(run, parent, suite)
    ground = lay_groundwork(run, corpora, suite, parent, trains=not run.options.masked)
    if run.options.delta is not None:
        delta = make_delta(run, ground, run.options.delta)
        stages = (*ground.controls.stages, delta.stage)
        with step(run.reporter, "report") as begins:
            begins()
            return finish(run, ground, delta.plan, stages, delta.model, key, scores=delta.scores, ticket=delta.ticket)
    specialist = specialize(run, ground)
    stages = (*ground.controls.stages, *specialist.stages)
    with step(run.reporter, "report") as begins:
        begins()
        if specialist.paper_form is not None:
            result = paper_form_report(run, ground, stages, specialist.paper_form, key)
            write_recipe(run)
            report.save(result, run.workspace.report)
            run.workspace.seal(key)
            run.workspace.slim()
            return result
        last = specialist.scores[-1]
        return finish(
            run, ground, specialist.plan, stages, specialist.model, key, scores=last, rounds=specialist.rounds
        )


def _finished(run: Run, key: str) -> BuildReport | None:
    """Return the report of this build if it is finished and whole; with `force`, clear the folder first.

    A finished build that is damaged is moved aside, and None tells that it has to be made again.

    Raises:
        MiniGPTError: the folder holds another build.
    """
    workspace = run.workspace
    if run.options.force:
        catalog.forget(workspace.root)
        workspace.clear()
    _refuse_other(run, key)
    if (reason := _damage(run)) is not None:
        catalog.forget(workspace.root)
        workspace.set_damaged_aside(reason)
    if not workspace.report.exists():
        return None
    result = report.load(workspace.report)
    if not workspace.is_sealed:  # killed before the last step, or built by an older version
        workspace.seal(key)
    if any(finished(workspace.work / stage) is not None for stage in ("healed", "delta")):
        register_and_slim(workspace)
    return result


def _refuse_other(run: Run, key: str) -> None:
    """Refuse a folder that holds the finished build of other options.

    Raises:
        MiniGPTError: it does; the message names the first options that differ.
    """
    workspace = run.workspace
    try:
        sums = read_sums(workspace.work / SUMS)
        other = sums.key if sums is not None else report.load(workspace.report).fingerprints.get("build")
    except MiniGPTError:  # damaged or not finished: nothing to protect
        return
    if other != key:
        differing = changes(run, workspace.root / RECIPE)[:NAMED]
        what = f"other options ({'; '.join(differing)})" if differing else "text or a parent that has changed since"
        hint = "" if differing else " (another path, size or time of a file counts as a change)"
        raise MiniGPTError(
            f"{workspace.root} holds a build made with {what}{hint}. Choose another --output-dir, or delete it and "
            "start over with --force."
        )


def _damage(run: Run) -> str | None:
    """Say what is wrong with a build that has a report; None if nothing is."""
    workspace = run.workspace
    if (reason := workspace.damage()) is not None:
        return reason
    if workspace.is_sealed or not workspace.report.exists():
        return None
    if not is_json(workspace.report):
        return "report.json is not JSON"
    product = workspace.model if run.options.delta is None else workspace.ticket
    if not run.options.masked and not any(product.glob("*.safetensors")):
        return "the model has no weights"
    return None


def _refuse_foreign(workspace: Workspace) -> None:
    """Refuse a folder that holds files which no build wrote.

    Raises:
        MiniGPTError: the folder is one of them.
    """
    if workspace.state() is State.FOREIGN:
        raise MiniGPTError(f"{workspace.root} is not empty and holds no build. Choose another --output-dir.")


def _claim(run: Run) -> None:
    """Mark the folder as a build's, before anything else is written into it."""
    write_json(run.workspace.marker, deciding_options(run.options))
