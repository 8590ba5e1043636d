"""The main job: from a domain's name to a smaller specialist with a report, stage by stage, resumable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minigpt import assets, report
from minigpt.domain.config import domain_names, domain_of, load_domain
from minigpt.errors import MiniGPTError
from minigpt.evaluation import ItemScores, suite_for
from minigpt.files import fingerprint, write_json
from minigpt.machine import pick_device
from minigpt.pipeline.context import Context
from minigpt.pipeline.finish import finish, settle
from minigpt.pipeline.healing import heal
from minigpt.pipeline.masked import Form, masked_report, masked_stage
from minigpt.pipeline.measure import Controls, measure, with_metrics
from minigpt.pipeline.options import BuildOptions
from minigpt.pipeline.plan import plan_for, prune
from minigpt.pipeline.read import check_bound, control_of, read_text, state_of
from minigpt.pipeline.settings import settings_for
from minigpt.pipeline.tuning import Tuned, tuned_parent
from minigpt.pipeline.workspace import Workspace, finished
from minigpt.planning.budget import check_target
from minigpt.progress import SILENT, Reporter
from minigpt.transformer.arch import shape_of
from minigpt.types import BuildReport, PrunePlan, StageReport


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """What `--plan-only` shows: what would be kept and removed, before any weight is touched."""

    domain: str
    base_model: str
    method: str
    parameters_before: int
    parameters_after: int
    layers: int
    intermediate_size: int
    kv_groups: int
    tokens: int | None
    removed_layers: tuple[int, ...]
    removed_parameters: dict[str, int]
    predicted_cost: dict[str, float]


def build(options: BuildOptions, reporter: Reporter = SILENT) -> tuple[BuildReport, ...]:
    """Build a specialist for each domain of `options`; finished stages of an earlier run are reused."""
    return tuple(_build_one(name, options, reporter) for name in _domains(options))


def plan_only(options: BuildOptions, reporter: Reporter = SILENT) -> tuple[PlanSummary, ...]:
    """Plan each domain's pruning and stop: statistics are kept, so that a later build goes on from there."""
    found = []
    for name in _domains(options):
        workspace = Workspace(root=options.folder(load_domain(name).name))
        _refuse_foreign(workspace)
        _claim(workspace, options)
        context = context_for(name, options, workspace, reporter)
        check_target(context)
        plan = plan_for(context, *_source(context)[:2]).plan
        found.append(_summary(context, plan))
    return tuple(found)


def _build_one(name: str, options: BuildOptions, reporter: Reporter) -> BuildReport:
    settings = settings_for(options.preset, options.overrides)
    domain = domain_of(name, online=options.online)
    key = fingerprint(state_of(domain, control_of(domain, settings), options.base), settings, _asked(options))
    workspace = Workspace(root=options.folder(domain.name))
    if (done := _finished(workspace, key, force=options.force, masked=options.masked)) is not None:
        reporter.note(f"{workspace.root} is finished; --force builds it again.")
        return done
    _claim(workspace, options)
    context = context_for(name, options, workspace, reporter)
    check_target(context)
    controls = measured_controls(context)
    made = pruned_and_healed(context, controls)
    if made.form is not None:
        found = masked_report(context, [*controls.stages, *made.stages], made.form, controls.source, key)
        report.save(found, workspace.report)
        workspace.slim()
        return found
    return finish(context, made.plan, [*controls.stages, *made.stages], made.model, key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The controls of a build: their stages, their items, and the model that is pruned and taught from."""

    stages: tuple[StageReport, ...]
    parent: ItemScores
    tuned: ItemScores | None
    source: Path
    source_key: str


def measured_controls(context: Context) -> Measured:
    """Measure the parent and, where the settings want it, tune and measure the control."""
    seed = context.options.seed
    parent_scores, parent = measure(context, "parent", context.parent.path, context.parent.fingerprint)
    stages = [with_metrics(parent, parent_scores, seed=seed)]
    source, source_key, control = _source(context)
    tuned_scores = None
    if control is not None:
        tuned_scores, tuned = measure(context, "parent_tuned", source, source_key)
        seconds, training = control.seconds, control.training
        stages.append(
            with_metrics(tuned, tuned_scores, parent=parent_scores, seed=seed, seconds=seconds, training=training)
        )
    return Measured(
        stages=tuple(stages), parent=parent_scores, tuned=tuned_scores, source=source, source_key=source_key
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Specialist:
    """What pruning and healing made: the plan, a report and the items of each stage, and the last model's folder.

    With `form` it was evaluated in memory only, and `model` is what was masked.
    """

    plan: PrunePlan
    stages: tuple[StageReport, ...]
    scores: tuple[ItemScores, ...]
    model: Path
    form: Form | None = None


def pruned_and_healed(context: Context, controls: Measured, *, healing: bool = True) -> Specialist:
    """Plan, prune, measure and, with `healing`, heal and measure again; a masked form is only evaluated."""
    if context.options.masked:
        form, stage, items = masked_stage(context, controls)
        return Specialist(plan=form.plan, stages=(stage,), scores=(items,), model=controls.source, form=form)
    seed = context.options.seed
    planned = plan_for(context, controls.source, controls.source_key)
    plan = planned.plan
    against = Controls(parent=controls.parent, tuned=controls.tuned, same_vocabulary=plan.tokens is None)
    folder, key, seconds = prune(context, planned, controls.source)
    before, pruned = measure(context, "pruned", folder, key)
    stages = (against.applied(pruned, before, seed=seed, seconds=seconds + planned.seconds),)
    if not healing:
        return Specialist(plan=plan, stages=stages, scores=(before,), model=folder)
    healed = heal(context, folder, key, plan, controls.source)
    after, final = measure(context, "healed", healed.path, healed.key)
    last = against.applied(final, after, seed=seed, seconds=healed.seconds, training=healed.training)
    return Specialist(plan=plan, stages=(*stages, last), scores=(before, after), model=healed.path)


def _source(context: Context) -> tuple[Path, str, Tuned | None]:
    """The model that is pruned and taught from: the tuned parent, or the parent itself without a control."""
    if not context.settings.control:
        return context.parent.path, context.parent.fingerprint, None
    tuned = tuned_parent(context)
    return tuned.path, tuned.key, tuned


def _asked(options: BuildOptions) -> dict[str, object]:
    """The options that decide the result (where it goes and how loud it is do not)."""
    return {
        "base": options.base,
        "target": str(options.target),
        "method": options.method,
        "preset": options.preset,
        "device": options.device,
        "dtype": options.dtype,
        "seed": options.seed,
        "kinds": options.kinds,
        "overrides": dict(options.overrides),
        "online": options.online,
        "masked": options.masked,
    }


def _domains(options: BuildOptions) -> tuple[str, ...]:
    """The domains named, `all` meaning every packaged one."""
    return domain_names() if "all" in options.domains else options.domains


def _finished(workspace: Workspace, key: str, *, force: bool, masked: bool) -> BuildReport | None:
    """The report of the same build if it is done; makes room for a new one if `force` says so.

    Raises:
        MiniGPTError: the folder holds another build, or files that no build wrote.
    """
    root = workspace.root
    _refuse_foreign(workspace)
    if force:
        workspace.clear()
    if not workspace.report.exists():
        return None
    found = report.load(workspace.report)
    if found.fingerprints.get("build") != key or not (masked or workspace.model.is_dir()):
        raise MiniGPTError(
            f"{root} holds a build made with other options. Choose another --output-dir, or start over with --force."
        )
    if finished(workspace.work / "healed") is not None:
        settle(workspace)
    return found


def _refuse_foreign(workspace: Workspace) -> None:
    if workspace.is_foreign():
        raise MiniGPTError(f"{workspace.root} is not empty and holds no build. Choose another --output-dir.")


def _claim(workspace: Workspace, options: BuildOptions) -> None:
    """Mark the folder as a build's before anything else is written there."""
    write_json(workspace.marker, _asked(options))


def context_for(name: str, options: BuildOptions, workspace: Workspace, reporter: Reporter) -> Context:
    """Resolve everything the stages share: domain, settings, device, corpus, suite, parent."""
    settings, domain = settings_for(options.preset, options.overrides), domain_of(name, online=options.online)
    device = pick_device(options.device)
    control = control_of(domain, settings)
    state = state_of(domain, control, options.base)
    corpus, general = read_text(domain, control, settings, options.seed, workspace, reporter, state)
    check_bound(domain, general, settings)
    suite = suite_for(
        corpus,
        general,
        max_heldout_bytes=settings.evaluation.heldout_bytes,
        max_questions=settings.evaluation.questions,
        seed=options.seed,
    )
    with reporter.stage(f"Parent {options.base}"):
        parent = assets.parent(options.base, reporter=reporter)
    return Context(
        options=options,
        settings=settings,
        domain=domain,
        corpus=corpus,
        general=general,
        suite=suite,
        parent=parent,
        device=device,
        text_seed=options.seed,
        workspace=workspace,
        reporter=reporter,
    )


def _summary(context: Context, plan: PrunePlan) -> PlanSummary:
    from transformers import AutoConfig

    layers = shape_of(AutoConfig.from_pretrained(context.parent.path)).layers
    return PlanSummary(
        domain=context.domain.name,
        base_model=plan.base_model,
        method=plan.method,
        parameters_before=plan.parameters_before,
        parameters_after=plan.parameters_after,
        layers=len(plan.layers),
        intermediate_size=len(plan.ffn[0]),
        kv_groups=len(plan.kv_groups[0]),
        tokens=None if plan.tokens is None else len(plan.tokens),
        removed_layers=tuple(sorted(set(range(layers)) - set(plan.layers))),
        removed_parameters=dict(plan.removed_parameters),
        predicted_cost=dict(plan.predicted_cost),
    )
