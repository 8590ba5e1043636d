"""The conditional form of a finished build: convert, choose, heal and measure, in steps that can resume.

`model` stays the dense specialist. Its feed-forward layers are converted one by one on the domain's calibration text;
dev text and a clock decide which of them replace the dense ones; the whole learns from the dense specialist.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from minigpt import assets, report
from minigpt.conditional.folder import save_model
from minigpt.conditional.kinds import kind_named
from minigpt.conditional.swap import dense_weights, put
from minigpt.errors import MiniGPTError
from minigpt.evaluation import Suite, load_scores, summarize
from minigpt.evaluation.part import items_of_part
from minigpt.evaluation.suite import without_answers
from minigpt.files import atomic_path, fingerprint, link, open_to_readers, read_json, write_json, write_text
from minigpt.forms import ConditionalForm
from minigpt.healing import train
from minigpt.healing.teacher import teacher_of
from minigpt.machine import release
from minigpt.pipeline.conditional_layers import (
    Conversion,
    choose_layers,
    convert_layers,
    dev_inputs,
    layers_of,
    with_visits,
)
from minigpt.pipeline.controls import Controls, compare_with_controls
from minigpt.pipeline.healing import bound_of
from minigpt.pipeline.measure import SCORES, Measurement, measure
from minigpt.pipeline.read import Corpora
from minigpt.pipeline.recipe import recipe_text
from minigpt.pipeline.run import Run, SavedModel, load
from minigpt.pipeline.text import tokenized, training_text
from minigpt.progress.stages import step
from minigpt.recipes import RECIPE
from minigpt.report.conditional import START, conditional_note
from minigpt.results import BuildReport, StageReport, Training
from minigpt.transformer.ends import configs_in, document_end

# Version of the conversion: raised when it changes, so that older conditional forms are made again.
VERSION = 1


def conditional_key(run: Run, corpora_fingerprint: str) -> str:
    """Fingerprint everything that decides a conditional form, but for the clock of the machine."""
    dense = assets.parent(str(run.workspace.model))
    settings = (run.options.conditional, run.settings.conditional, run.settings.heal.window, run.options.seed)
    return fingerprint(VERSION, dense.fingerprint, settings, corpora_fingerprint, run.options.dtype)


def has_conditional(run: Run, result: BuildReport) -> bool:
    """Return whether a finished build has the conditional form that its options ask for."""
    key = conditional_key(run, result.fingerprints.get("corpus", ""))
    return run.workspace.conditional.is_dir() and result.fingerprints.get("conditional") == key


def check_conditional(run: Run, parent: assets.Parent) -> None:
    """Refuse a parent whose layers cannot become conditional, before anything is built of it.

    Raises:
        UnsupportedModel: its layers have experts or a state, a gate with a bias, or an activation that is not known.
    """
    if run.options.conditional is not None:
        dense_weights(assets.load_outline(parent.path), 0)


def add_conditional(run: Run, result: BuildReport, corpora: Corpora, suite: Suite) -> BuildReport:
    """Make the conditional form of a finished build's model, and return the report with its stage.

    Args:
        run: the build; its options name the kind.
        result: the report of the dense specialist.
        corpora: domain and general text.
        suite: the texts and questions that are measured.

    Raises:
        MiniGPTError: the measurements of the dense build are not there any more.
        PlanError: no layer is faster than the dense one on this machine.
    """
    assert run.options.conditional is not None
    if _items(run, "parent") is None or _items(run, "healed") is None:
        raise MiniGPTError(
            f"{run.workspace.work} does not have the measurements of this build any more, which the conditional form "
            "is compared with. Build it in another --output-dir, or again with --force."
        )
    key = conditional_key(run, corpora.domain.fingerprint)
    dense = SavedModel(path=run.workspace.model, key=key)
    work = Conversion(run=run, corpora=corpora, kind=kind_named(run.options.conditional), dense=dense, key=key)
    with step(run.reporter, "conditional_layers") as begins:
        begins()
        convert_layers(work)
    choice_folder, choice = run.workspace.stage("conditional_choice", key, lambda target: _choose(work, target))
    form = read_json(choice_folder / "form.json", ConditionalForm)
    folder, done = run.workspace.stage("conditional", key, lambda target: _heal_and_save(work, form, target))
    measured = measure(run, without_answers(suite), "conditional", SavedModel(path=folder / "model", key=key))
    stage = _compared(run, measured, _training(folder), choice.seconds + done.seconds)
    stage = replace(stage, conditional=read_json(folder / "form.json", ConditionalForm))
    return _finish(work, result, stage, folder / "model")


def _choose(work: Conversion, folder: Path) -> None:
    """Choose the layers that become conditional, and write what decided."""
    with work.step("choosing layers"):
        write_json(folder / "form.json", choose_layers(work, assets.load_tokenizer(work.dense.path)))
        release()


def _heal_and_save(work: Conversion, form: ConditionalForm, folder: Path) -> None:
    """Heal the whole with the chosen layers in place, and write model, form and training."""
    run, settings = work.run, work.run.settings.conditional
    tokenizer = assets.load_tokenizer(work.dense.path)
    with work.step("healing"):
        model = load(run, work.dense.path, training=True)
        put(model, layers_of(work, form))
        training = _heal(work, model, tokenizer) if settings.steps else None
        form = with_visits(form, model, dev_inputs(work, model, tokenizer))
        model.to(_dtype(run.options.dtype))
        shares = {entry.layer: entry.visited / entry.neurons for entry in form.layers if entry.conditional}
        save_model(model, tokenizer, folder / "model", visited_shares=shares, notes={"kind": work.kind.name})
        open_to_readers(folder / "model")
        write_json(folder / "form.json", form)
        if training is not None:
            write_json(folder / "training.json", training)
        del model
        release()


def _heal(work: Conversion, model: Any, tokenizer: Any) -> Training:
    """Train the conditional form end to end, with the dense specialist as its teacher."""
    run, settings = work.run, work.run.settings.conditional
    recipe = replace(
        run.settings.heal,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        growth=1.0,
        distill=1.0,
        noise=0.0,
        adapter="full",
        evaluate_every=max(1, min(run.settings.heal.evaluate_every, settings.steps // 4 or 1)),
    )
    end = document_end(tokenizer, *configs_in(work.dense.path))
    text = training_text(work.corpora, run.settings, seed=run.text_seed)
    train_text, dev = tokenized(text, tokenizer, recipe.window, end=end, sampled=False)
    parent = assets.parent(run.options.base, reporter=run.reporter)
    return train(
        model,
        train_text,
        dev,
        recipe,
        bound=bound_of(run, work.corpora, parent, model, tokenizer),
        teacher=teacher_of(load(run, work.dense.path), None, model),
        seed=run.options.seed,
        backs_off=True,
        title="Healing the conditional form",
        reporter=run.reporter,
        checkpoint=run.workspace.work / "conditional.safetensors",
    )


def _training(folder: Path) -> Training | None:
    """Read the training record; None where nothing was healed."""
    path = folder / "training.json"
    return read_json(path, Training) if path.exists() else None


def _dtype(name: str) -> Any:
    """Return a torch type by its name."""
    import torch

    return getattr(torch, name)


def _compared(run: Run, measured: Measurement, training: Training | None, seconds: float) -> StageReport:
    """Make the stage of the report, with differences to parent, tuned parent and dense specialist."""
    dense = _items(run, "healed")
    controls = Controls(
        parent=_items(run, "parent"),
        tuned=_items(run, "parent_tuned"),
        stages=(),
        source=SavedModel(path=run.workspace.model, key=""),
        twin=_items(run, "parent_distilled"),
    )
    plan = run.workspace.root / "plan.json"
    same = '"tokens": null' in plan.read_text("utf-8")
    stage = compare_with_controls(controls, measured, same_vocabulary=same, seconds=seconds, training=training)
    against = summarize(measured.scores, parent=items_of_part(dense, measured.scores))
    differences = {(result.task, result.metric): result.paired_difference_vs_parent for result in against}
    metrics = tuple(
        replace(result, paired_difference_vs_dense=differences.get((result.task, result.metric)))
        for result in stage.metrics
    )
    return replace(stage, metrics=metrics)


def _items(run: Run, stage: str) -> Any:
    """Read the item scores of a stage of the dense build; None where there are none."""
    path = run.workspace.work / f"measured_{stage}" / SCORES
    return load_scores(path) if path.exists() else None


def _finish(work: Conversion, result: BuildReport, stage: StageReport, model: Path) -> BuildReport:
    """Put the folder in place, and write the report with the new stage."""
    run = work.run
    with atomic_path(run.workspace.conditional) as temporary:
        shutil.copytree(model, temporary, copy_function=link)
    stages = (*(one for one in result.stages if one.stage != "conditional"), stage)
    result = replace(
        result,
        stages=stages,
        seconds=sum(one.seconds for one in stages),
        fingerprints={**result.fingerprints, "conditional": work.key},
    )
    notes = (*(note for note in result.notes if not note.startswith(START)), conditional_note(result))
    result = replace(result, notes=notes)
    write_text(run.workspace.root / RECIPE, recipe_text(run))
    report.save(result, run.workspace.report)
    return result
