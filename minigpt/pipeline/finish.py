"""Last step of a build: copy the model, write report, plan, domain, recipe and card, enter it in the catalog."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from minigpt import __version__, report
from minigpt.corpus.coverage import coverage_records
from minigpt.corpus.personal import personal_counts, personal_sentence
from minigpt.costs import Cost
from minigpt.domain.config import DomainConfig, resolved_yaml
from minigpt.evaluation import ItemScores, Suite
from minigpt.evaluation.exchanges import exchanges
from minigpt.exchanges import TaskExchanges
from minigpt.files import atomic_path, file_sha256, fingerprint, link, to_plain, write_json, write_text
from minigpt.integrity import sha256_once
from minigpt.machine import device_name, versions
from minigpt.models import catalog
from minigpt.models.signing import sign_if_wanted
from minigpt.pipeline.chat import chat_note
from minigpt.pipeline.control_notes import control_notes
from minigpt.pipeline.coverage import every_text, without_recited
from minigpt.pipeline.groundwork import Groundwork
from minigpt.pipeline.notes import attributions, notes
from minigpt.pipeline.part_notes import part_notes, task_notes
from minigpt.pipeline.recipe import flatten_settings, recipe_text
from minigpt.pipeline.run import Run
from minigpt.pipeline.settings import PRESETS, Settings
from minigpt.pipeline.workspace import Workspace
from minigpt.recipes import RECIPE
from minigpt.report.card import write_card
from minigpt.report.figures import kept_per_layer
from minigpt.report.page import FILE_NAME as PAGE
from minigpt.report.page import write_page
from minigpt.report.sbom import FILE as BILL
from minigpt.report.sbom import bill_of_materials, files_of
from minigpt.results import BuildReport, StageReport, TicketRound
from minigpt.transformer.arch import shape_of
from minigpt.types import Corpus, PrunePlan, Shape


def finish(
    run: Run,
    ground: Groundwork,
    plan: PrunePlan,
    stages: Sequence[StageReport],
    model: Path,
    key: str,
    *,
    scores: ItemScores | None = None,
    ticket: Path | None = None,
    rounds: tuple[TicketRound, ...] = (),
) -> BuildReport:
    """Write everything that a user keeps; the report comes last, so that a report means a complete build.

    Args:
        run: the build.
        ground: corpora, parent and text.
        plan: the units that were kept.
        stages: all stages of the report.
        model: the folder of the last model.
        key: the build's fingerprint, of :func:`minigpt.pipeline.run.build_key`.
        scores: items of the last model, for the answers won and lost.
        ticket: the folder of the delta ticket that is kept instead of the model.
        rounds: rounds of a lottery ticket.
    """
    from transformers import AutoConfig

    workspace = run.workspace
    spoken = chat_note(run, ground.parent, model)
    with run.reporter.stage("Report, model card and catalog"):
        kept, source = (workspace.model, model) if ticket is None else (workspace.ticket, ticket)
        with atomic_path(kept) as temporary:
            shutil.copytree(source, temporary, copy_function=link)
        after = shape_of(AutoConfig.from_pretrained(model))
        vocabulary = file_sha256(model / "tokenizer.json")
        result = build_report(run, ground, plan, stages, key, after=after, vocabulary=vocabulary, extra_notes=spoken)
        result = replace(result, exchanges=answers_compared(ground, scores, stages[-1].stage))
        write_json(workspace.root / "plan.json", plan)
        write_recipe(run)
        write_card(without_recited(result, every_text(ground.corpora, ground.text)), kept)
        result = replace(result, rounds=rounds)
        write_page(result, workspace.root / PAGE)
        hashes = {path.relative_to(workspace.root).as_posix(): sha256_once(path) for path in files_of(kept)}
        write_json(workspace.root / BILL, bill_of_materials(result, hashes))
        sign_if_wanted(workspace.root, run.reporter)
        report.save(result, workspace.report)
        workspace.seal(key)
        register_and_slim(workspace)
    return result


def write_recipe(run: Run) -> None:
    """Write what repeats a build: the resolved domain, and the recipe that names it."""
    write_text(run.workspace.root / "domain.yaml", resolved_yaml(run.domain))
    write_text(run.workspace.root / RECIPE, recipe_text(run))


def register_and_slim(workspace: Workspace) -> None:
    """Enter a build with a report in the catalog, and delete files that it no longer needs."""
    catalog.add(workspace.root)
    try:
        workspace.slim()
    except OSError as error:  # the build is finished; what it no longer needs is only in the way
        reason = error.strerror or error
        workspace.reporter.note(f"Text and weights that are no longer needed stay in {workspace.work}: {reason}.")


def build_report(
    run: Run,
    ground: Groundwork,
    plan: PrunePlan,
    stages: Sequence[StageReport],
    key: str,
    *,
    after: Shape,
    vocabulary: str,
    extra_notes: Sequence[str] = (),
) -> BuildReport:
    """Make the report of a build.

    Args:
        run: the build.
        ground: corpora, parent and text.
        plan: the units that were kept.
        stages: all stages of the report.
        key: the build's fingerprint, of :func:`minigpt.pipeline.run.build_key`.
        after: shape of the last stage's model.
        vocabulary: hash of that model's tokenizer.
        extra_notes: notes about that model.
    """
    from transformers import AutoConfig

    options, parent = run.options, ground.parent
    method, target = options.way
    before = shape_of(AutoConfig.from_pretrained(parent.path))
    personal = personal_counts(ground.text.real)
    warning = personal_sentence(personal)
    return BuildReport(
        domain=run.domain.name,
        base_model=options.base,
        base_precision=parent.precision,
        method=method,
        preset=options.preset,
        target=target,
        seed=options.seed,
        versions=versions(__version__),
        device=device_name(run.device),
        seconds=sum(stage.seconds for stage in stages),
        stages=tuple(stages),
        shape_before=before,
        shape_after=after,
        kept_per_layer=kept_per_layer(plan, before),
        removed_parameters=plan.removed_parameters,
        corpus_counts=ground.corpora.domain.counts,
        attributions=attributions(ground.corpora, ground.text),
        coverage=coverage_records(ground.coverage),
        personal=personal,
        description=run.domain.description,
        general_share=ground.text.general_share if ground.corpora.general is not None else None,
        overrides=changed_settings(PRESETS[options.preset], run.settings),
        cost=cost_of(run),
        sample_prompt=run.prompt,
        sample_prompts=ground.suite.samples,
        notes=(*build_notes(run, ground, plan, stages), *extra_notes, *([warning] if warning else [])),
        fingerprints={
            **task_fingerprints(ground.suite),
            "vocabulary": vocabulary,
            "build": key,
            "corpus": ground.corpora.domain.fingerprint,
        },
    )


def cost_of(run: Run) -> Cost:
    """Collect the cost of all steps of a build, those included that the points of a sweep share."""
    steps = (run.shared.steps if run.shared else {}) | run.workspace.steps
    return Cost(steps=tuple(steps.values()), price=run.options.price_per_hour)


def answers_compared(ground: Groundwork, scores: ItemScores | None, stage: str) -> tuple[TaskExchanges, ...]:
    """Compare the answers of the last model with those of parent and tuned parent; none without its scores."""
    if scores is None:
        return ()
    models = {"parent": ground.controls.parent, stage: scores}
    if ground.controls.tuned is not None:
        models["parent_tuned"] = ground.controls.tuned
    return exchanges(ground.suite, models, ours=stage)


def build_notes(run: Run, ground: Groundwork, plan: PrunePlan, stages: Sequence[StageReport]) -> tuple[str, ...]:
    """Gather the notes on text, plan and controls of a build."""
    about_the_build = notes(
        run,
        ground.corpora,
        ground.suite,
        ground.text,
        plan,
        precision=ground.parent.precision,
        trained=any(stage.training is not None for stage in stages),
        share=min(stage.share for stage in stages),
    )
    amounts = run.settings.evaluation
    missing = part_notes(ground.corpora, ground.suite, heldout_bytes=amounts.heldout_bytes)
    if run.shared is None:  # a sweep leaves all tasks with free answers out
        missing += task_notes(definitions_of(run, ground), answers=amounts.answers)
    return (*about_the_build, *missing, *control_notes(ground, stages))


def definitions_of(run: Run, ground: Groundwork) -> list[tuple[DomainConfig, Corpus]]:
    """Pair the definitions of domain and general text with their corpora."""
    pairs = [(run.domain, ground.corpora.domain)]
    if run.general is not None and ground.corpora.general is not None:
        pairs.append((run.general, ground.corpora.general))
    return pairs


def changed_settings(preset: Settings, settings: Settings) -> dict[str, str]:
    """List the settings that differ from the preset's, as `--set` takes them; a recipe names all of them.

    Args:
        preset: Settings of the preset.
        settings: Settings of the build.
    """
    before, after = (flatten_settings(to_plain(values)) for values in (preset, settings))
    return {name: value for name, value in after.items() if before.get(name) != value}


def task_fingerprints(suite: Suite) -> dict[str, str]:
    """Fingerprint the texts and questions that each task was measured on."""
    recited = {task: fingerprint(documents) for task, documents in suite.recitations.items()}
    texts = {task: fingerprint(documents) for task, documents in suite.texts.items()}
    for task, (whole, keys) in suite.parts.items():
        texts[task] = fingerprint([document for document in suite.texts[whole] if document.source in keys])
    sets = {task: fingerprint(questions) for task, questions in suite.questions.items()}
    return recited | texts | sets | {task: fingerprint(item) for task, item in suite.answers.items()}
