"""Planning of a build: run the planner on the build's inputs, and keep its results on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from minigpt import assets
from minigpt.files import fingerprint, read_json, write_json
from minigpt.machine import release
from minigpt.methods import Method, method_named
from minigpt.methods.cut import repair_of
from minigpt.methods.material import Material
from minigpt.methods.ranking import rank
from minigpt.methods.scores import Scores
from minigpt.methods.searches import Searches
from minigpt.pipeline.budget import budget_of
from minigpt.pipeline.opened import Opened, open_source, precision_key
from minigpt.pipeline.rounds import StructuredTicket
from minigpt.pipeline.run import Run, SavedModel
from minigpt.pipeline.text import PlanningText, calibration, general_calibration, probe_documents
from minigpt.planning import Curve
from minigpt.planning.budget import allowed_axes
from minigpt.planning.planner import Curves, decide_sensitivity, measure_curves, plan_units
from minigpt.planning.probes import PROBED
from minigpt.streaming.parent import StreamedParent
from minigpt.streaming.probes import measure_curves as streamed_curves
from minigpt.transformer import stats
from minigpt.transformer.arch import arch_of
from minigpt.transformer.batches import Batch, apart
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
        *precision_key(run, source.path),
    )

    def make(folder: Path) -> None:
        with run.reporter.stage("Activation statistics and plan"):
            opened, tokenizer = open_source(run, source.path), assets.load_tokenizer(source.path)
            material = material_for(run, text, opened.model, tokenizer, source.key, opened=opened)
            if ticket is not None:
                material = replace(material, ticket=ticket.scores)
            curves_key = source.key if ticket is None else fingerprint(source.key, ticket.key)
            plan = plan_model(run, parent, text, material, tokenizer, curves_key, streamed=opened.parent)
            names = {"source": source.key, "corpus": corpus, "parent": parent.fingerprint}
            write_json(folder / PLAN, replace(plan, fingerprints=names))
            del opened, material
            release()

    folder, done = run.workspace.stage("plan", key, make)
    seconds = done.seconds + (ticket.seconds if ticket is not None else 0.0)
    return Planned(plan=read_json(folder / PLAN, PrunePlan), key=key, seconds=seconds)


def plan_model(
    run: Run,
    parent: assets.Parent,
    text: PlanningText,
    material: Material,
    tokenizer: Any,
    source_key: str,
    *,
    streamed: StreamedParent | None = None,
) -> PrunePlan:
    """Plan the pruning of a model, which stays as it is; measured curves are saved.

    Args:
        run: the build.
        parent: the untuned parent.
        text: the text that decides about units.
        material: of :func:`material_for`; its model is the one to prune.
        tokenizer: the model's tokenizer.
        source_key: fingerprint of the model.
        streamed: the streamed parent, where the model of the material is the outline of one.
    """
    method, config = method_named(run.options.method), material.model.config
    scores = rank(method, material)
    budget = budget_of(run, parent, config, tokenizer)
    sensitivity = decide_sensitivity(
        budget,
        config,
        run.settings.plan,
        accelerated=run.device != "cpu",
        measure=lambda: _curves(run, text, method, material, tokenizer, scores, source_key, streamed),
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


def material_for(
    run: Run, text: PlanningText, model: Any, tokenizer: Any, source_key: str, *, opened: Opened | None = None
) -> Material:
    """Gather the material of the build's method; all methods and sizes share the statistics.

    Args:
        run: the build.
        text: calibration text.
        model: the model to prune, in float32.
        tokenizer: its tokenizer.
        source_key: fingerprint of the model.
        opened: the model as :func:`minigpt.pipeline.opened.open_source` gave it (None: all of it is in memory).
    """
    settings, options = run.settings.plan, run.options
    opened = opened or Opened(model)
    batches = list(apart(model, calibration(text, tokenizer, settings.tokens)))
    general_statistics = None
    if settings.contrast and text.general:
        general_batches = general_calibration(text, tokenizer, settings.tokens)
        general_statistics = _statistics(run, GENERAL, text.general_key, opened, general_batches, source_key)
    return Material(
        model=model,
        batches=batches,
        statistics=_statistics(run, DOMAIN, text.key, opened, batches, source_key),
        norms=opened.weight_norms(run.reporter),
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
    run: Run, name: str, text_key: str, opened: Opened, batches: Sequence[Batch], source_key: str
) -> stats.ActivationStats:
    """Measure the activation statistics of a model on a text, once for all methods and sizes."""

    def make(folder: Path) -> None:
        stats.save(opened.collect(batches, run.reporter), folder / STATISTICS)

    precision = ("bf16",) if opened.model.dtype == torch.bfloat16 else ()
    key = fingerprint(
        STATISTICS_VERSION, source_key, text_key, run.settings.plan.tokens, run.settings.heal.window, *precision
    )
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
    streamed: StreamedParent | None,
) -> Curves:
    """Measure the costs of the axes that may be cut, once for all sizes."""
    settings = run.settings.plan
    axes = allowed_axes(method, run.options.kinds, arch_of(material.model))
    repair = repair_of(method, run.settings.repair)
    seed = material.seed if "seed" in method.options else 0

    def make(folder: Path) -> None:
        measure = measure_curves if streamed is None else partial(streamed_curves, streamed)
        curves = measure(
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
        *(["bf16"] if material.model.dtype == torch.bfloat16 else []),
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
