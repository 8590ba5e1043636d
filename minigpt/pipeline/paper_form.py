"""Paper forms in a build (`--paper-form`): evaluate one in memory and report on it; its model is never saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minigpt import assets
from minigpt.evaluation import ItemScores, load_scores, save_scores
from minigpt.evaluation.items import with_parts
from minigpt.evaluation.suite import without_answers
from minigpt.files import file_sha256, fingerprint, read_json, write_json
from minigpt.machine import measuring_conditions, measuring_dtype, release
from minigpt.methods import method_named, resolve
from minigpt.methods.cut import repair_of
from minigpt.methods.material import PaperForm
from minigpt.methods.ranking import keep_everything
from minigpt.pipeline.budget import target_parameters
from minigpt.pipeline.controls import compare_with_controls
from minigpt.pipeline.cutting import cut_as_built
from minigpt.pipeline.finish import build_report
from minigpt.pipeline.groundwork import Groundwork
from minigpt.pipeline.measure import SCORES, Measurement, greedy, scores_of
from minigpt.pipeline.plan import material_for, plan_pruning
from minigpt.pipeline.rounds import ticket_of
from minigpt.pipeline.run import Run, load
from minigpt.planning.target import DTYPE_BYTES
from minigpt.report.figures import kept_per_layer
from minigpt.results import BuildReport, StageReport
from minigpt.transformer.arch import parameters_of, shape_of
from minigpt.types import PrunePlan, Shape

RECORD = "form.json"
# First note of a report on a paper form.
HEAD = (
    "--paper-form: the method's own form was evaluated in memory, before any healing; no model was written. Sizes "
    "count the parameters that are not masked."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperFormRecord:
    """Record of an evaluated paper form.

    Attributes:
        parameters: parameters that are not masked.
        bytes: bytes of all weights, masked ones included.
        sample: the greedy continuation of the build's prompt.
        note: explains what was evaluated and what its size counts.
        shape: shape of the evaluated model.
        plan: the units that are removed whole.
        kept: under `ffn` and `kv_groups`, the units that every parent layer keeps.
    """

    parameters: int
    bytes: int
    sample: str
    note: str
    shape: Shape
    plan: PrunePlan
    kept: dict[str, tuple[int, ...]] = field(default_factory=dict)


def paper_form_report(
    run: Run, ground: Groundwork, stages: Sequence[StageReport], form: PaperFormRecord, key: str
) -> BuildReport:
    """Make the report of a paper form; `stages` are those of the controls and its own."""
    vocabulary = fingerprint(form.plan.tokens)
    if form.plan.tokens is None:
        vocabulary = file_sha256(ground.controls.source.path / "tokenizer.json")
    result = build_report(run, ground, form.plan, stages, key, after=form.shape, vocabulary=vocabulary)
    notes = (HEAD, *([form.note] if form.note else []), *result.notes)
    return replace(result, kept_per_layer=form.kept or result.kept_per_layer, notes=notes)


def paper_form_stage(run: Run, ground: Groundwork) -> tuple[PaperFormRecord, StageReport, ItemScores]:
    """Evaluate the paper form of the model that would be pruned; scores are saved, weights are not."""
    options, settings, text = run.options, run.settings, ground.planning
    repaired = repair_of(method_named(options.method), settings.repair) is not None
    name = fingerprint(
        "masked",
        ground.controls.source.key,
        (text.key, settings.heal.window, text.general_key if settings.plan.contrast else ""),
        settings.plan,
        settings.repair,
        (options.method, options.target, options.kinds, options.seed, options.dtype, repaired),
        (replace(ground.suite, parts={}), settings.evaluation, run.prompt),
        measuring_conditions(run.device),
    )

    def make(folder: Path) -> None:
        with run.reporter.stage("Evaluating the method's own form"):
            _evaluate(run, ground, folder)

    folder, done = run.workspace.stage("measured_pruned", name, make)
    form = read_json(folder / RECORD, PaperFormRecord)
    scores = load_scores(folder / SCORES)
    stage = StageReport(
        stage="pruned",
        parameters=form.parameters,
        bytes=form.bytes,
        seconds=done.seconds,
        metrics=(),
        sample=form.sample,
        opening=scores.opening,
    )
    scores = with_parts(scores, ground.suite.parts)
    measured = Measurement(scores=scores, report=stage)
    return form, compare_with_controls(ground.controls, measured, same_vocabulary=form.plan.tokens is None), scores


def _evaluate(run: Run, ground: Groundwork, folder: Path) -> None:
    """Make the paper form, evaluate it, and write scores and record into the stage's folder."""
    import torch

    dtype = run.options.dtype
    form, plan, tokenizer = _make(run, ground)
    model = form.model.eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype)).to(measuring_dtype(run.device))
    save_scores(scores_of(run, without_answers(ground.suite), model, tokenizer), folder / SCORES)
    record = PaperFormRecord(
        parameters=form.parameters,
        bytes=sum(parameter.numel() for parameter in model.parameters()) * DTYPE_BYTES[dtype],
        sample=greedy(model, tokenizer, run.prompt, run.settings.evaluation.sample_tokens),
        note=form.note,
        shape=shape_of(model),
        plan=plan,
        kept=dict(form.kept),
    )
    write_json(folder / RECORD, record)
    del model, form
    release()


def _make(run: Run, ground: Groundwork) -> tuple[PaperForm, PrunePlan, Any]:
    """Make the paper form, a plan of the units that it removes as a whole, and its tokenizer."""
    method, source, text = method_named(run.options.method), ground.controls.source, ground.planning
    model, tokenizer = load(run, source.path, training=True), assets.load_tokenizer(source.path)
    if method.paper_form is not None:
        plan = _plan_to_keep_everything(run, ground, model)
        material = material_for(run, text, model, tokenizer, source.key)
        form: PaperForm = resolve(method.paper_form)(material, plan.target_parameters)
        return form, plan, tokenizer
    ticket = ticket_of(run, ground.parent, text, ground.text, source)
    plan = plan_pruning(run, ground.parent, ground.corpora.domain.fingerprint, text, source, ticket).plan
    kept = kept_per_layer(plan, shape_of(model))
    model, tokenizer, _ = cut_as_built(run, text, model, tokenizer, plan, source.key)
    return PaperForm(model=model, parameters=plan.parameters_after, note="", kept=kept), plan, tokenizer


def _plan_to_keep_everything(run: Run, ground: Groundwork, model: Any) -> PrunePlan:
    """Make a plan that removes nothing and states the target size."""
    options, size = run.options, parameters_of(model)
    plan = keep_everything(shape_of(model), base_model=options.base, method=options.method, seed=options.seed)
    return replace(
        plan,
        parameters_before=size,
        parameters_after=size,
        target_parameters=target_parameters(run, ground.parent, model.config),
    )
