"""Planning and pruning of a build: run planner and cut on the build's inputs, and keep their results on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.files import fingerprint, read_json, write_json
from minigpt.machine import release
from minigpt.methods import Method, method_named
from minigpt.methods.cut import check_size, cut_units, repair_of, trim_vocabulary
from minigpt.methods.material import Material
from minigpt.methods.norms import weight_norms
from minigpt.methods.ranking import rank
from minigpt.methods.scores import Scores
from minigpt.methods.searches import Searches
from minigpt.pipeline.budget import budget_of
from minigpt.pipeline.rounds import StructuredTicket
from minigpt.pipeline.run import Run, SavedModel, load, save_model
from minigpt.pipeline.text import PlanningText, calibration, general_calibration, probe_documents
from minigpt.planning import Curve
from minigpt.planning.budget import allowed_axes
from minigpt.planning.planner import Curves, decide_sensitivity, measure_curves, plan_units
from minigpt.planning.probes import PROBED
from minigpt.pruning.repair import RepairReport
from minigpt.transformer import stats, together
from minigpt.transformer.arch import arch_of
from minigpt.transformer.batches import Batch
from minigpt.transformer.calibration import token_counts
from minigpt.types import PrunePlan

PLAN = "plan.json"
STATISTICS = "stats.safetensors"
CURVES = "curves.json"
# Version of the statistics: raised when they change, so that older ones are measured again.
STATISTICS_VERSION = 2
# Stage folders of the statistics of domain text and general text.
DOMAIN, GENERAL = "statistics", "statistics_general"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan and its fingerprint.

    Attributes:
        plan: the units to keep.
        key: fingerprint of everything that the plan depends on.
        seconds: time that planning took.
    """

    plan: PrunePlan
    key: str
    seconds: float


def plan_pruning(
    run: Run,
    parent: assets.Parent,
    corpus: str,
    text: PlanningText,
    source: SavedModel,
    ticket: StructuredTicket | None = None,
) -> Planned:
    """Plan the pruning of a model: statistics on calibration text, then a split of the budget.

    Args:
        run: the build.
        parent: the untuned parent.
        corpus: fingerprint of the domain's corpus, for the plan's record.
        text: the text that decides about units.
        source: the model to prune.
        ticket: ranking of the rounds of a method that needs them.
    """
    options = run.options
    key = fingerprint(
        source.key,
        text.key,
        run.settings.plan,
        options.target,
        options.method,
        options.kinds,
        options.seed,
        options.dtype,
        run.settings.heal.window,
        repair_of(method_named(options.method), run.settings.repair),
        *_contrast_key(run, text),
        *([ticket.key] if ticket is not None else []),
    )

    def make(folder: Path) -> None:
        with run.reporter.stage("Activation statistics and plan"):
            model, tokenizer = load(run, source.path, training=True), assets.load_tokenizer(source.path)
            material = material_for(run, text, model, tokenizer, source.key)
            if ticket is not None:
                material = replace(material, ticket=ticket.scores)
            curves_key = source.key if ticket is None else fingerprint(source.key, ticket.key)
            plan = plan_model(run, parent, text, material, tokenizer, curves_key)
            names = {"source": source.key, "corpus": corpus, "parent": parent.fingerprint}
            write_json(folder / PLAN, replace(plan, fingerprints=names))
            del model, material
            release()

    folder, done = run.workspace.stage("plan", key, make)
    seconds = done.seconds + (ticket.seconds if ticket is not None else 0.0)
    return Planned(plan=read_json(folder / PLAN, PrunePlan), key=key, seconds=seconds)


def plan_model(
    run: Run, parent: assets.Parent, text: PlanningText, material: Material, tokenizer: Any, source_key: str
) -> PrunePlan:
    """Plan the pruning of a float32 model in memory, which stays as it is; measured curves are saved.

    Args:
        run: the build.
        parent: the untuned parent.
        text: the text that decides about units.
        material: of :func:`material_for`; its model is the one to prune.
        tokenizer: the model's tokenizer.
        source_key: fingerprint of the model.
    """
    method, config = method_named(run.options.method), material.model.config
    scores = rank(method, material)
    budget = budget_of(run, parent, config, tokenizer)
    sensitivity = decide_sensitivity(
        budget,
        config,
        run.settings.plan,
        accelerated=run.device != "cpu",
        measure=lambda: _curves(run, text, method, material, tokenizer, scores, source_key),
    )
    return plan_units(
        method,
        material,
        tokenizer,
        budget,
        sensitivity,
        scores,
        base_model=run.options.base,
        kinds=run.options.kinds,
    )


def material_for(run: Run, text: PlanningText, model: Any, tokenizer: Any, source_key: str) -> Material:
    """Gather the material of the build's method; all methods and sizes share the statistics.

    Args:
        run: the build.
        text: calibration text.
        model: the model to prune, in float32.
        tokenizer: its tokenizer.
        source_key: fingerprint of the model.
    """
    settings, options = run.settings.plan, run.options
    batches = calibration(text, tokenizer, settings.tokens)
    general_statistics = None
    if settings.contrast and text.general:
        general_batches = general_calibration(text, tokenizer, settings.tokens)
        general_statistics = _statistics(run, GENERAL, text.general_key, model, general_batches, source_key)
    return Material(
        model=model,
        batches=batches,
        statistics=_statistics(run, DOMAIN, text.key, model, batches, source_key),
        norms=weight_norms(model),
        general_statistics=general_statistics,
        counts=token_counts(tokenizer, text.counted),
        specials=frozenset(tokenizer.all_special_ids),
        seed=options.seed,
        kinds=frozenset(options.kinds or ("linear", "activation")),
        contrast=settings.contrast,
        epsilon=settings.epsilon,
        epsilon_tokens=settings.epsilon_tokens,
        protect_ends=settings.protect_ends,
        searches=_searches(run, text, source_key),
        reporter=run.reporter,
    )


def _statistics(
    run: Run, name: str, text_key: str, model: Any, batches: Sequence[Batch], source_key: str
) -> stats.ActivationStats:
    """Measure the activation statistics of a model on a text, once for all methods and sizes."""

    def make(folder: Path) -> None:
        stats.save(together.collect(model, batches, reporter=run.reporter), folder / STATISTICS)

    key = fingerprint(STATISTICS_VERSION, source_key, text_key, run.settings.plan.tokens, run.settings.heal.window)
    folder, _ = run.common.stage(name, key, make)
    return stats.load(folder / STATISTICS)


def _curves(
    run: Run,
    text: PlanningText,
    method: Method,
    material: Material,
    tokenizer: Any,
    scores: Scores | None,
    source_key: str,
) -> Curves:
    """Measure the costs of the axes that may be cut, once for all sizes."""
    settings = run.settings.plan
    axes = allowed_axes(method, run.options.kinds, arch_of(material.model))
    repair = repair_of(method, run.settings.repair)
    seed = material.seed if "seed" in method.options else 0

    def make(folder: Path) -> None:
        curves = measure_curves(
            method,
            material,
            tokenizer,
            scores,
            probe_documents(text, 4 * settings.probe_tokens),
            axes=axes,
            repair=repair,
            probe_tokens=settings.probe_tokens,
            window=text.window,
            reporter=run.reporter,
        )
        write_json(folder / CURVES, curves)

    key = fingerprint(
        STATISTICS_VERSION,
        PROBED,
        source_key,
        text.key,
        (settings.tokens, settings.probe_tokens, text.window),
        (method.name, sorted(material.kinds), seed, settings.contrast),
        repair,
        *_contrast_key(run, text),
        *([] if axes == method.axes else [sorted(axes)]),
    )
    folder, _ = run.common.stage(f"sensitivity-{method.name}-s{seed}", key, make)
    return read_json(folder / CURVES, dict[str, Curve])


def _contrast_key(run: Run, text: PlanningText) -> tuple[str, ...]:
    """Return the key of the general text, if the plan depends on it through a contrast."""
    return (text.general_key,) if run.settings.plan.contrast and text.general_key else ()


def _searches(run: Run, text: PlanningText, source_key: str) -> Searches:
    """Open the folder of searches by loss in this model and text, which all sizes share."""
    settings = run.settings
    key = fingerprint(
        (STATISTICS_VERSION, source_key, text.key, run.device.partition(":")[0]),
        (settings.plan.tokens, settings.plan.protect_ends, settings.heal.window),
    )
    return Searches(run.common.work / "searches" / key)


def prune(run: Run, text: PlanningText, planned: Planned, source: SavedModel) -> tuple[SavedModel, float]:
    """Cut a saved model as planned and save the result.

    Args:
        run: the build.
        text: calibration text for the repair.
        planned: the plan, of :func:`plan_pruning`.
        source: the model that the plan was made for.

    Returns:
        The pruned model and the seconds that cutting took.
    """
    repair = repair_of(method_named(run.options.method), run.settings.repair)
    key = fingerprint(planned.key, planned.plan, run.settings.repair, repair is not None)

    def make(folder: Path) -> None:
        with run.reporter.stage("Pruning"):
            model, tokenizer = load(run, source.path, training=True), assets.load_tokenizer(source.path)
            model, tokenizer, report = cut_as_built(run, text, model, tokenizer, planned.plan, source.key)
            if report is not None:
                write_json(folder / "repair.json", report)
            save_model(model, tokenizer, folder / "model", run.options.dtype)
            del model
            release()

    folder, done = run.workspace.stage("pruned", key, make)
    return SavedModel(path=folder / "model", key=key), done.seconds


def cut_as_built(
    run: Run, text: PlanningText, model: Any, tokenizer: Any, plan: PrunePlan, source_key: str
) -> tuple[Any, Any, RepairReport | None]:
    """Cut a model in memory by the build's method, on the build's text; see :func:`cut`."""
    method = method_named(run.options.method)
    repair = repair_of(method, run.settings.repair)
    return cut(
        run,
        model,
        tokenizer,
        plan,
        batches=calibration(text, tokenizer, repair.tokens) if repair is not None else (),
        material=material_for(run, text, model, tokenizer, source_key) if method.transform is not None else None,
    )


def cut(
    run: Run,
    model: Any,
    tokenizer: Any,
    plan: PrunePlan,
    *,
    batches: Sequence[Batch] = (),
    material: Material | None = None,
) -> tuple[Any, Any, RepairReport | None]:
    """Cut a model in memory by the build's method, vocabulary included.

    Args:
        run: the build.
        model: the model that the plan was made for; it is changed.
        tokenizer: its tokenizer.
        plan: the units to keep.
        batches: calibration text for the repair.
        material: the input of a method with its own transformation; its model is the one to cut.

    Returns:
        The model, the tokenizer and the report of the repair (None: there was no repair).

    Raises:
        PlanError: the result does not have the plan's size.
    """
    method = method_named(run.options.method)
    model, report = cut_units(
        model,
        plan,
        method,
        repair=repair_of(method, run.settings.repair),
        batches=batches,
        material=material,
        reporter=run.reporter,
    )
    model, tokenizer = trim_vocabulary(model, tokenizer, plan)
    check_size(model, plan)
    return model, tokenizer, report
