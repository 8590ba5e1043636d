"""Pruning of a build: cut the model as planned, in memory or streamed, and keep the result on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from minigpt import assets
from minigpt.files import fingerprint, write_json
from minigpt.machine import release
from minigpt.methods import method_named
from minigpt.methods.cut import check_size, cut_units, repair_of, trim_vocabulary
from minigpt.methods.material import Material
from minigpt.pipeline.opened import open_source
from minigpt.pipeline.plan import Planned, material_for
from minigpt.pipeline.run import Run, SavedModel, save_model
from minigpt.pipeline.text import PlanningText, calibration
from minigpt.pruning.repair import RepairReport
from minigpt.streaming.parent import StreamedParent
from minigpt.streaming.saving import prune_to_folder
from minigpt.transformer.batches import Batch
from minigpt.types import PrunePlan


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
            opened, tokenizer = open_source(run, source.path), assets.load_tokenizer(source.path)
            if opened.parent is not None:
                report = _prune_streamed(run, text, opened.parent, tokenizer, planned.plan, folder / "model")
            else:
                model, tokenizer, report = cut_as_built(run, text, opened.model, tokenizer, planned.plan, source.key)
                save_model(model, tokenizer, folder / "model", run.options.dtype)
                del model
            if report is not None:
                write_json(folder / "repair.json", report)
            del opened
            release()

    folder, done = run.workspace.stage("pruned", key, make)
    return SavedModel(path=folder / "model", key=key), done.seconds


def _prune_streamed(
    run: Run, text: PlanningText, parent: StreamedParent, tokenizer: Any, plan: PrunePlan, folder: Path
) -> RepairReport | None:
    """Cut a streamed parent as planned and write the result."""
    repair = repair_of(method_named(run.options.method), run.settings.repair)
    return prune_to_folder(
        parent,
        tokenizer,
        plan,
        folder,
        dtype=getattr(torch, run.options.dtype),
        repair=repair,
        batches=calibration(text, tokenizer, repair.tokens) if repair is not None else (),
        reporter=run.reporter,
    )


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
