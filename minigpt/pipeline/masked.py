"""`build --masked`: a method's own form, evaluated in memory and never saved, with a report of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt import assets
from minigpt.evaluation import ItemScores, load_scores, save_scores
from minigpt.files import file_sha256, fingerprint, read_json, write_json
from minigpt.machine import measuring_dtype, release
from minigpt.methods import method_named, resolve
from minigpt.methods.material import Masked
from minigpt.pipeline.context import Context
from minigpt.pipeline.finish import build_report
from minigpt.pipeline.measure import SCORES, Controls, greedy, scored
from minigpt.pipeline.plan import contrasted_with, cut, material_for, plan_for, repairs
from minigpt.planning.budget import target_parameters
from minigpt.planning.target import DTYPE_BYTES
from minigpt.report.figures import kept_per_layer
from minigpt.transformer.arch import parameters_of, shape_of
from minigpt.types import BuildReport, PrunePlan, Shape, StageReport

if TYPE_CHECKING:
    from minigpt.pipeline.build import Measured

FORM = "form.json"
HEAD = (
    "--masked: the method's own form was evaluated in memory, before any healing; no model was written. Sizes count "
    "the parameters that are not masked."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What was evaluated: the parameters that count, bytes of all weights, shape, plan, and what the method tells."""

    parameters: int
    bytes: int
    sample: str
    note: str
    shape: Shape
    plan: PrunePlan
    kept: dict[str, tuple[int, ...]] = field(default_factory=dict)


def masked_report(context: Context, stages: Sequence[StageReport], form: Form, source: Path, key: str) -> BuildReport:
    """The report of a form; `stages` are the controls' and the form's own, `source` is what was masked."""
    vocabulary = fingerprint(form.plan.tokens)
    if form.plan.tokens is None:
        vocabulary = file_sha256(source / "tokenizer.json")
    made = build_report(context, form.plan, stages, key, after=form.shape, vocabulary=vocabulary)
    notes = (HEAD, *([form.note] if form.note else []), *made.notes)
    return replace(made, kept_per_layer=form.kept or made.kept_per_layer, notes=notes)


def masked_stage(context: Context, controls: Measured) -> tuple[Form, StageReport, ItemScores]:
    """Evaluate the method's own form of the model that would be pruned; scores are kept, weights are not."""
    options, settings = context.options, context.settings
    asked = (options.method, options.target, options.kinds, options.seed, options.dtype, repairs(context))
    measured = (context.suite, settings.evaluation, context.prompt)
    read = (context.plan_text_key, settings.heal.window, contrasted_with(context))
    name = fingerprint("masked", controls.source_key, read, settings.plan, settings.repair, asked, measured)

    def make(folder: Path) -> None:
        with context.reporter.stage("Evaluating the method's own form"):
            _evaluate(context, controls, folder)

    folder, done = context.workspace.stage("measured_pruned", name, make)
    form = read_json(folder / FORM, Form)
    against = Controls(parent=controls.parent, tuned=controls.tuned, same_vocabulary=form.plan.tokens is None)
    stage = StageReport(
        stage="pruned",
        parameters=form.parameters,
        bytes=form.bytes,
        seconds=done.seconds,
        metrics=(),
        sample=form.sample,
    )
    scores = load_scores(folder / SCORES)
    return form, against.applied(stage, scores, seed=options.seed), scores


def _evaluate(context: Context, controls: Measured, folder: Path) -> None:
    import torch

    dtype = context.options.dtype
    masked, plan, tokenizer = _form(context, controls)
    model = masked.model.eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype)).to(measuring_dtype(context.device))
    save_scores(scored(context, model, tokenizer), folder / SCORES)
    form = Form(
        parameters=masked.parameters,
        bytes=sum(parameter.numel() for parameter in model.parameters()) * DTYPE_BYTES[dtype],
        sample=greedy(model, tokenizer, context.prompt, context.settings.evaluation.sample_tokens),
        note=masked.note,
        shape=shape_of(model),
        plan=plan,
        kept=dict(masked.kept),
    )
    write_json(folder / FORM, form)
    del model, masked
    release()


def _form(context: Context, controls: Measured) -> tuple[Masked, PrunePlan, Any]:
    """The method's own form, a plan that says what it removes whole, and the tokenizer to read with."""
    method = method_named(context.options.method)
    model, tokenizer = context.load(controls.source, training=True), assets.load_tokenizer(controls.source)
    if method.faithful is not None:
        plan = _everything(context, model)
        material = material_for(context, model, tokenizer, controls.source_key)
        masked: Masked = resolve(method.faithful)(material, plan.target_parameters)
        return masked, plan, tokenizer
    plan = plan_for(context, controls.source, controls.source_key).plan
    kept = kept_per_layer(plan, shape_of(model))
    model, tokenizer, _ = cut(context, model, tokenizer, plan, controls.source_key)
    return Masked(model=model, parameters=plan.parameters_after, note="", kept=kept), plan, tokenizer


def _everything(context: Context, model: Any) -> PrunePlan:
    """A plan that removes nothing and says which size is asked for."""
    shape, size = shape_of(model), parameters_of(model)
    return PrunePlan(
        base_model=context.options.base,
        method=context.options.method,
        seed=context.options.seed,
        layers=tuple(range(shape.layers)),
        ffn=(tuple(range(shape.intermediate_size)),) * shape.layers,
        kv_groups=(tuple(range(shape.kv_groups)),) * shape.layers,
        parameters_before=size,
        parameters_after=size,
        target_parameters=target_parameters(context, model.config),
    )
