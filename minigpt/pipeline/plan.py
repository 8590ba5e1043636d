"""Statistics, plan, pruning: from a model and calibration text to a smaller model with plain shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.errors import PlanError
from minigpt.files import fingerprint, read_json, write_json
from minigpt.machine import release
from minigpt.methods import Method, method_named, resolve
from minigpt.methods.depth.greedy import Searches
from minigpt.methods.importance import Scores
from minigpt.methods.material import GENERAL, Material
from minigpt.methods.ranking import choose, rank
from minigpt.pipeline.context import Context, save_model
from minigpt.pipeline.sensitivity import PROBED, measure_sensitivity
from minigpt.pipeline.text import calibration_batches
from minigpt.planning import Curve, Sensitivity, shipped
from minigpt.planning.allocate import removed_fractions
from minigpt.planning.attribution import removed_parameters
from minigpt.planning.budget import FREE, Budget, budget_for
from minigpt.progress import SILENT, Reporter
from minigpt.pruning import vocab
from minigpt.pruning.apply import apply_plan
from minigpt.pruning.repair import prune_with_repair
from minigpt.transformer import stats
from minigpt.transformer.arch import parameters_of, shape_of
from minigpt.transformer.batches import Batch, take_tokens
from minigpt.types import Ints, PrunePlan

PLAN = "plan.json"
STATISTICS = "stats.safetensors"
CURVES = "curves.json"
STATISTICS_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The plan, the fingerprint of all it depends on and of the model it was made for, and how long it took."""

    plan: PrunePlan
    key: str
    source_key: str
    seconds: float


def plan_for(context: Context, source: Path, source_key: str) -> Planned:
    """Plan the pruning of the model in `source`: statistics on calibration text, then a split of the budget."""
    chosen = context.settings.plan
    options = context.options
    key = fingerprint(
        source_key,
        context.plan_text_key,
        chosen,
        options.target,
        options.method,
        options.kinds,
        options.seed,
        options.dtype,
        context.settings.heal.window,
        context.settings.repair if repairs(context) else None,
        *contrasted_with(context),
    )

    def make(folder: Path) -> None:
        with context.reporter.stage("Activation statistics and plan"):
            write_json(folder / PLAN, _plan(context, source, source_key))

    folder, done = context.workspace.stage("plan", key, make)
    return Planned(plan=read_json(folder / PLAN, PrunePlan), key=key, source_key=source_key, seconds=done.seconds)


def material_for(context: Context, model: Any, tokenizer: Any, source_key: str) -> Material:
    """The model and the text that the build's method works with; statistics are shared by all methods and sizes."""
    chosen, options = context.settings.plan, context.options
    general = general_calibration(context, tokenizer) if chosen.contrast else []

    def collect(name: str, batches: Sequence[Batch]) -> stats.ActivationStats:
        def make(folder: Path) -> None:
            stats.save(stats.collect(model, batches, reporter=context.reporter), folder / STATISTICS)

        contrasted = context.general if name == GENERAL else None
        text = context.plan_text_key if contrasted is None else contrasted.fingerprint
        key = fingerprint(STATISTICS_VERSION, source_key, text, chosen.tokens, context.settings.heal.window)
        folder, _ = context.common.stage(name, key, make)
        return stats.load(folder / STATISTICS)

    return Material(
        method=options.method,
        model=model,
        batches=context.calibration(tokenizer, chosen.tokens),
        general=general,
        counts=context.token_counts(tokenizer),
        specials=frozenset(tokenizer.all_special_ids),
        seed=options.seed,
        kinds=frozenset(options.kinds or ("linear", "activation")),
        protect_ends=chosen.protect_ends,
        searches=_searches(context, source_key),
        contrast=chosen.contrast,
        epsilon=chosen.epsilon,
        epsilon_tokens=chosen.epsilon_tokens,
        collect=collect,
        reporter=context.reporter,
    )


def contrasted_with(context: Context) -> tuple[str, ...]:
    """What a plan depends on besides the domain's text: the general text, where importance is compared with it."""
    return (context.general.fingerprint,) if context.settings.plan.contrast and context.general is not None else ()


def _searches(context: Context, source_key: str) -> Searches:
    """Where searches by loss over this model and text are kept, for all sizes."""
    chosen = context.settings
    key = fingerprint(
        (STATISTICS_VERSION, source_key, context.plan_text_key, context.device.partition(":")[0]),
        (chosen.plan.tokens, chosen.plan.protect_ends, chosen.heal.window),
    )
    return Searches(context.common.work / "searches" / key)


def general_calibration(context: Context, tokenizer: Any) -> list[Batch]:
    """Calibration text of the control domain, as much as of the domain; none if there is no control."""
    if context.general is None:
        return []
    return calibration_batches(
        tokenizer,
        context.general.calibration,
        window=context.settings.heal.window,
        tokens=context.settings.plan.tokens,
        batch_tokens=context.settings.evaluation.batch_tokens,
    )


def _plan(context: Context, source: Path, source_key: str) -> PrunePlan:
    made = plan_of(context, context.load(source, training=True), assets.load_tokenizer(source), source_key)
    release()
    return made


def plan_of(context: Context, model: Any, tokenizer: Any, source_key: str) -> PrunePlan:
    """The plan for a model in memory (float32 weights), which stays as it is."""
    options, method = context.options, method_named(context.options.method)
    material = material_for(context, model, tokenizer, source_key)
    scores = rank(method, material)
    parent, budget = shape_of(model), budget_for(context, model.config, tokenizer)
    sensitivity = _sensitivity(context, method, material, tokenizer, scores, budget, source_key)
    shape = budget.shape(parent, sensitivity)
    tokens: Ints | None = None
    if shape.vocab_size < parent.vocab_size:
        tokens = vocab.keep_tokens(tokenizer, material.counts, shape.vocab_size)
    plan = choose(method, material, shape, scores, base_model=options.base)
    costs = budget.costs
    removed = removed_parameters(plan, parent, shape, costs, material.stats, material.norms, options.kinds)
    return replace(
        plan,
        tokens=tokens,
        parameters_before=parameters_of(model),
        parameters_after=costs.total(shape),
        target_parameters=budget.target,
        removed_parameters=removed,
        predicted_cost={axis: sensitivity.cost(axis, part) for axis, part in removed_fractions(parent, shape).items()},
        sensitivity=sensitivity.source,
        fingerprints={"source": source_key, "corpus": context.corpus.fingerprint, "parent": context.parent.fingerprint},
    )


def _sensitivity(
    context: Context,
    method: Method,
    material: Material,
    tokenizer: Any,
    scores: Scores | None,
    budget: Budget,
    source_key: str,
) -> Sensitivity:
    """The curves that decide between the method's axes; free ones where the size alone decides."""
    if budget.choices < 2:
        return FREE
    chosen, model = context.settings.plan, material.model
    table = shipped(str(model.config.model_type), int(model.config.hidden_size), shape_of(model), chosen.healing)
    measured = chosen.sensitivity == "measure" or (chosen.sensitivity == "auto" and context.device != "cpu")
    if table is not None and not measured:
        return table
    probed = list(take_tokens(material.batches, chosen.probe_tokens))
    seed = material.seed if "seed" in method.options else 0

    def make(folder: Path) -> None:
        curves = measure_sensitivity(
            model,
            tokenizer,
            lambda copy, shape: _applied(
                context,
                copy,
                choose(method, material, shape, scores, base_model=""),
                batches=lambda: probed,
                material=lambda: replace(material, model=copy),
            )[0],
            context.probe_documents(4 * chosen.probe_tokens),
            material.counts,
            axes=method.axes,
            window=context.settings.heal.window,
            reporter=context.reporter,
        )
        write_json(folder / CURVES, curves)

    key = fingerprint(
        STATISTICS_VERSION,
        PROBED,
        source_key,
        context.plan_text_key,
        (chosen.tokens, chosen.probe_tokens, context.settings.heal.window),
        (method.name, sorted(material.kinds), seed, chosen.contrast),
        context.settings.repair if repairs(context) else None,
        *contrasted_with(context),
    )
    folder, _ = context.common.stage(f"sensitivity-{method.name}-s{seed}", key, make)
    return Sensitivity.after(chosen.healing, read_json(folder / CURVES, dict[str, Curve]))


def prune(context: Context, planned: Planned, source: Path) -> tuple[Path, str, float]:
    """Cut the model in `source` as planned and save it. Returns its folder, key and seconds."""
    key = fingerprint(planned.key, planned.plan, context.settings.repair, repairs(context))

    def make(folder: Path) -> None:
        with context.reporter.stage("Pruning"):
            model, tokenizer = context.load(source, training=True), assets.load_tokenizer(source)
            model, tokenizer, told = cut(context, model, tokenizer, planned.plan, planned.source_key)
            if told is not None:
                write_json(folder / "repair.json", told)
            save_model(model, tokenizer, folder / "model", context.options.dtype)
            del model
            release()

    folder, done = context.workspace.stage("pruned", key, make)
    return folder / "model", key, done.seconds


def repairs(context: Context) -> bool:
    """Whether the least-squares repair runs: where it belongs to the method, or where `--set repair...` asks for it.

    A method with a transformation of its own has no place for it, nor has one that merges layers.
    """
    method = method_named(context.options.method)
    asked = any(name.startswith("repair.") for name in context.options.overrides)
    return (method.repair or asked) and method.transform is None and context.settings.repair.tokens > 0


def cut(
    context: Context, model: Any, tokenizer: Any, plan: PrunePlan, source_key: str
) -> tuple[Any, Any, object | None]:
    """The model and tokenizer after the method's own cut, and what the repair has to tell (None: there was none).

    Raises:
        PlanError: the result is not of the plan's size.
    """
    model, told = _applied(
        context,
        model,
        plan,
        batches=lambda: context.calibration(tokenizer, context.settings.repair.tokens),
        material=lambda: material_for(context, model, tokenizer, source_key),
        reporter=context.reporter,
    )
    model, tokenizer = _trimmed(model, tokenizer, plan)
    _check_size(model, plan)
    return model, tokenizer, told


def _applied(
    context: Context,
    model: Any,
    plan: PrunePlan,
    *,
    batches: Callable[[], Sequence[Batch]],
    material: Callable[[], Material],
    reporter: Reporter = SILENT,
) -> tuple[Any, object | None]:
    """The model without the plan's units and layers, cut by the method's own means, and what the repair has to tell.

    `batches` are for the repair, `material` holds the model for a transformation.
    """
    method, chosen = method_named(context.options.method), context.settings.repair
    if method.transform is not None:
        return resolve(method.transform)(material(), plan), None
    if repairs(context) and not plan.merges:
        repaired, told = prune_with_repair(
            model,
            plan,
            batches(),
            ridge=chosen.ridge,
            sequential=chosen.sequential,
            target=chosen.target,
            reporter=reporter,
        )
        return repaired, told
    return apply_plan(model, plan), None


def _trimmed(model: Any, tokenizer: Any, plan: PrunePlan) -> tuple[Any, Any]:
    if plan.tokens is None:
        return model, tokenizer
    trimmed = vocab.trim_tokenizer(tokenizer, plan.tokens)
    return vocab.trim_model(model, trimmed), trimmed.tokenizer


def _check_size(model: Any, plan: PrunePlan) -> None:
    counted = sum(parameter.numel() for parameter in model.parameters())
    if counted != plan.parameters_after:
        raise PlanError(f"The pruned model has {counted:,} parameters, the plan said {plan.parameters_after:,}.")
