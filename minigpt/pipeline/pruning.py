"""Statistics, plan, pruning: from a model and calibration text to a smaller model with plain shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from minigpt import assets, stats, vocab
from minigpt.arch import check_shape, legal_kv_groups, parameters_of, shape_of, unit_costs
from minigpt.batches import Batch
from minigpt.errors import PlanError
from minigpt.files import fingerprint, read_json, write_json
from minigpt.importance import Scores, score, weight_norms
from minigpt.pipeline.attribution import removed_parameters
from minigpt.pipeline.context import Context, release, save_model
from minigpt.pipeline.presets import PlanSettings
from minigpt.pipeline.sensitivity import measure_sensitivity
from minigpt.pipeline.text import dev_sample, token_counts
from minigpt.plan import AXES, LEFT_AFTER, Limits, Sensitivity, allocate, shipped
from minigpt.plan.allocate import VOCAB_STEP, removed_fractions
from minigpt.prune import apply_plan, make_plan
from minigpt.repair import prune_with_repair
from minigpt.types import Ints, PrunePlan

PLAN = "plan.json"
STATISTICS = "stats.safetensors"
FEWEST_LAYERS = 0.4
FEWEST_NEURONS = 0.25
ENTRY_BYTES = 84
KINDS_OF_WIDTH: Mapping[str, frozenset[str]] = {
    "layers": frozenset({"layers"}),
    "intermediate_size": frozenset({"linear", "activation"}),
    "kv_groups": frozenset({"linear"}),
    "vocab_size": frozenset({"embedding"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The plan, the fingerprint of all it depends on, and how long it took."""

    plan: PrunePlan
    key: str
    seconds: float


def plan_for(context: Context, source: Path, source_key: str) -> Planned:
    """Plan the pruning of the model in `source`: statistics on calibration text, then a split of the budget."""
    chosen = context.settings.plan
    options = context.options
    key = fingerprint(
        source_key,
        context.corpus.fingerprint,
        chosen,
        options.target,
        options.method,
        options.kinds,
        options.seed,
        options.dtype,
        context.settings.heal.window,
    )

    def make(folder: Path) -> None:
        with context.reporter.stage("Activation statistics and plan"):
            write_json(folder / PLAN, _plan(context, source, source_key))

    folder, done = context.workspace.stage("plan", key, make)
    return Planned(plan=read_json(folder / PLAN, PrunePlan), key=key, seconds=done.seconds)


def _plan(context: Context, source: Path, source_key: str) -> PrunePlan:
    chosen, options = context.settings.plan, context.options
    model, tokenizer = context.load(source, training=True), assets.load_tokenizer(source)
    batches = context.calibration(tokenizer, chosen.tokens)
    found = _statistics(context, model, batches, source_key)
    counts = token_counts(tokenizer, [*context.corpus.calibration, *context.corpus.train])
    kinds = frozenset(options.kinds or ("linear", "activation"))
    norms = weight_norms(model)
    scores = score(options.method, found, norms, seed=options.seed, kinds=kinds)
    parent, costs = shape_of(model), unit_costs(model)
    sensitivity = _sensitivity(context, model, tokenizer, scores, batches, counts)
    shape = allocate(
        parent, costs, _target(context, model.config), sensitivity, _limits(context, model.config, tokenizer)
    )
    tokens: Ints | None = None
    if shape.vocab_size < parent.vocab_size:
        tokens = vocab.keep_tokens(tokenizer, counts, shape.vocab_size)
    plan = make_plan(scores, shape, base_model=options.base, method=options.method, seed=options.seed)
    removed = removed_parameters(plan, parent, shape, costs, found, norms, options.kinds)
    release()
    return replace(
        plan,
        tokens=tokens,
        parameters_before=costs.total(parent),
        parameters_after=costs.total(shape),
        removed_parameters=removed,
        predicted_cost={axis: sensitivity.cost(axis, part) for axis, part in removed_fractions(parent, shape).items()},
        sensitivity=sensitivity.source,
        fingerprints={"source": source_key, "corpus": context.corpus.fingerprint, "parent": context.parent.fingerprint},
    )


def _statistics(context: Context, model: Any, batches: list[Batch], source_key: str) -> stats.ActivationStats:
    """One pass over the calibration text, shared by all methods and sizes."""
    settings = context.settings
    key = fingerprint(source_key, context.corpus.fingerprint, settings.plan.tokens, settings.heal.window)

    def make(folder: Path) -> None:
        stats.save(stats.collect(model, batches, reporter=context.reporter), folder / STATISTICS)

    folder, _ = context.common.stage("statistics", key, make)
    return stats.load(folder / STATISTICS)


def check_target(context: Context) -> None:
    """Refuse a target that no shape can meet before any compute is spent on it.

    Raises:
        PlanError: says what the nearest shape is, or which width is wrong.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(context.parent.path)
    free = Sensitivity(curves={axis: ((1.0, 0.0),) for axis in AXES})
    limits = _limits(context, config, assets.load_tokenizer(context.parent.path))
    allocate(shape_of(config), unit_costs(config), _target(context, config), free, limits)


def _target(context: Context, config: Any) -> int:
    """Parameters to keep, the names in the header of the parent's weights allowed for."""
    options, header = context.options, 64
    for path in context.parent.path.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as weights:
            header += sum(len(name) + ENTRY_BYTES for name in weights.keys())  # noqa: SIM118 (not a mapping)
    return options.target.parameters(parameters_of(config), options.dtype, header=header)


def _sensitivity(
    context: Context, model: Any, tokenizer: Any, scores: Scores, batches: list[Any], counts: Mapping[int, int]
) -> Sensitivity:
    chosen = context.settings.plan
    table = shipped(str(model.config.model_type), int(model.config.hidden_size), shape_of(model), chosen.healing)
    if table is not None and chosen.sensitivity == "table":
        return table
    from minigpt.batches import take_tokens

    documents = dev_sample(context.corpus.dev, 4 * chosen.probe_tokens)
    return measure_sensitivity(
        model,
        tokenizer,
        scores,
        list(take_tokens(batches, chosen.probe_tokens)),
        documents,
        counts,
        window=context.settings.heal.window,
        weights=LEFT_AFTER[chosen.healing],
        reporter=context.reporter,
    )


def _limits(context: Context, config: Any, tokenizer: Any) -> Limits:
    """What the options allow: kinds, widths fixed with `--set plan...`, and what the family loads.

    Raises:
        PlanError: a fixed width that cannot be cut from the parent, or that needs a kind of pruning not allowed.
    """
    parent, chosen = shape_of(config), context.settings.plan
    kinds = {*(context.options.kinds or ("linear", "activation", "embedding", "layers"))}
    fewest = min(parent.layers, max(2, round(parent.layers * FEWEST_LAYERS)))
    narrowest = round(parent.intermediate_size * FEWEST_NEURONS)
    smallest = min(parent.vocab_size, _smallest_vocabulary(tokenizer))
    allowed = Limits(
        layers=tuple(range(fewest, parent.layers + 1)) if "layers" in kinds else (parent.layers,),
        kv_groups=legal_kv_groups(config) if "linear" in kinds else (parent.kv_groups,),
        neurons=(narrowest if {"linear", "activation"} & kinds else parent.intermediate_size, parent.intermediate_size),
        vocab=(smallest if "embedding" in kinds else parent.vocab_size, parent.vocab_size),
        cut_vocab=len(tokenizer) - 1,
    )
    _check_fixed(chosen, config, kinds, len(tokenizer))
    return replace(
        allowed,
        layers=allowed.layers if chosen.layers is None else (chosen.layers,),
        kv_groups=allowed.kv_groups if chosen.kv_groups is None else (chosen.kv_groups,),
        neurons=allowed.neurons if chosen.intermediate_size is None else (chosen.intermediate_size,) * 2,
        vocab=allowed.vocab if chosen.vocab_size is None else (chosen.vocab_size,) * 2,
    )


def _check_fixed(chosen: PlanSettings, config: Any, kinds: set[str], tokens: int) -> None:
    """Refuse widths of `--set plan...` that do not fit the parent or the kinds allowed."""
    parent = shape_of(config)
    fixed = {name: getattr(chosen, name) for name in KINDS_OF_WIDTH if getattr(chosen, name) is not None}
    check_shape(config, replace(parent, **fixed))
    for name, width in fixed.items():
        if width != getattr(parent, name) and not kinds & KINDS_OF_WIDTH[name]:
            needed = " or ".join(sorted(KINDS_OF_WIDTH[name]))
            raise PlanError(f"plan.{name}={width} needs pruning of kind {needed}, which --kinds leaves out; drop one.")
    size, most = chosen.vocab_size, min(parent.vocab_size, tokens)
    if size not in (None, parent.vocab_size) and (size % VOCAB_STEP or not 0 < size < most):
        raise PlanError(f"plan.vocab_size={size} must be a multiple of {VOCAB_STEP} below the parent's {most} tokens.")


def _smallest_vocabulary(tokenizer: Any) -> int:
    """The fewest tokens to plan with: what must be kept, and a thousand to speak with."""
    return -(-(len(vocab.closure(tokenizer, ())) + 1280) // 64) * 64


def prune(context: Context, planned: Planned, source: Path) -> tuple[Path, str, float]:
    """Cut the model in `source` as planned, with repair, and save it. Returns its folder, key and seconds."""
    chosen = context.settings.repair
    key = fingerprint(planned.key, planned.plan, chosen)

    def make(folder: Path) -> None:
        with context.reporter.stage("Pruning"):
            model, tokenizer = context.load(source, training=True), assets.load_tokenizer(source)
            if chosen.tokens:
                batches = context.calibration(tokenizer, chosen.tokens)
                model, report = prune_with_repair(
                    model,
                    planned.plan,
                    batches,
                    ridge=chosen.ridge,
                    sequential=chosen.sequential,
                    target=chosen.target,
                    reporter=context.reporter,
                )
                write_json(folder / "repair.json", report)
            else:
                apply_plan(model, planned.plan)
            model, tokenizer = _trimmed(model, tokenizer, planned.plan)
            _check_size(model, planned.plan)
            save_model(model, tokenizer, folder / "model", context.options.dtype)
            del model
            release()

    folder, done = context.workspace.stage("pruned", key, make)
    return folder / "model", key, done.seconds


def _trimmed(model: Any, tokenizer: Any, plan: PrunePlan) -> tuple[Any, Any]:
    if plan.tokens is None:
        return model, tokenizer
    trimmed = vocab.trim_tokenizer(tokenizer, plan.tokens)
    return vocab.trim_model(model, trimmed), trimmed.tokenizer


def _check_size(model: Any, plan: PrunePlan) -> None:
    counted = sum(parameter.numel() for parameter in model.parameters())
    if counted != plan.parameters_after:
        raise PlanError(f"The pruned model has {counted:,} parameters, the plan said {plan.parameters_after:,}.")
