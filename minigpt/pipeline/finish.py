"""The last stage: move the model into place, write report, plan, domain and card, enter the catalog, clear up."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from minigpt import __version__, report
from minigpt.domain.config import resolved_yaml
from minigpt.files import file_sha256, fingerprint, link, write_json, write_text
from minigpt.machine import device_name, versions
from minigpt.models import catalog
from minigpt.pipeline.context import Context
from minigpt.pipeline.plan import repairs
from minigpt.pipeline.sampling import sampled_documents
from minigpt.pipeline.workspace import Workspace
from minigpt.planning.allocate import TOLERANCE
from minigpt.report.card import write_card
from minigpt.report.figures import kept_per_layer
from minigpt.transformer.arch import shape_of
from minigpt.types import Attribution, BuildReport, PrunePlan, Shape, StageReport


def finish(context: Context, plan: PrunePlan, stages: Sequence[StageReport], model: Path, key: str) -> BuildReport:
    """Write everything a user keeps. The report comes last, so that its presence means the build is whole."""
    from transformers import AutoConfig

    workspace, domain = context.workspace, context.domain
    with context.reporter.stage("Report, model card and catalog"):
        shutil.rmtree(workspace.model, ignore_errors=True)
        shutil.copytree(model, workspace.model, copy_function=link)
        after = shape_of(AutoConfig.from_pretrained(workspace.model))
        vocabulary = file_sha256(workspace.model / "tokenizer.json")
        made = build_report(context, plan, stages, key, after=after, vocabulary=vocabulary)
        write_json(workspace.root / "plan.json", plan)
        write_text(workspace.root / "domain.yaml", resolved_yaml(domain))
        write_card(made, workspace.model)
        report.save(made, workspace.report)
        settle(workspace)
    return made


def settle(workspace: Workspace) -> None:
    """Enter a build whose report is written in the catalog, and drop what it needs no longer."""
    catalog.add(workspace.root)
    workspace.slim()


def build_report(
    context: Context, plan: PrunePlan, stages: Sequence[StageReport], key: str, *, after: Shape, vocabulary: str
) -> BuildReport:
    """The record of the build; `after` is the shape of the last stage's model, `vocabulary` its tokenizer's hash."""
    from transformers import AutoConfig

    options = context.options
    before = shape_of(AutoConfig.from_pretrained(context.parent.path))
    return BuildReport(
        domain=context.domain.name,
        base_model=options.base,
        base_precision=context.parent.precision,
        method=options.method,
        preset=options.preset,
        target=str(options.target),
        seed=options.seed,
        versions=versions(__version__),
        device=device_name(context.device),
        seconds=sum(stage.seconds for stage in stages),
        stages=tuple(stages),
        shape_before=before,
        shape_after=after,
        kept_per_layer=kept_per_layer(plan, before),
        removed_parameters=plan.removed_parameters,
        corpus_counts=context.corpus.counts,
        attributions=attributions(context),
        sample_prompt=context.prompt,
        notes=notes(context, plan, stages),
        fingerprints=fingerprints(context, key, vocabulary),
    )


def fingerprints(context: Context, key: str, vocabulary: str) -> dict[str, str]:
    """What the numbers were measured on: one hash for each task, the vocabulary's, and the build's own."""
    suite = context.suite
    tasks = {task: fingerprint(documents) for task, documents in suite.texts.items()}
    tasks |= {task: fingerprint(asked) for task, asked in suite.questions.items()}
    return {**tasks, "vocabulary": vocabulary, "build": key, "corpus": context.corpus.fingerprint}


def attributions(context: Context) -> tuple[Attribution, ...]:
    """Where the training text came from, the general text mixed in included."""
    mixed = context.general.attributions if context.general is not None and context.general_share else ()
    return (*context.corpus.attributions, *mixed)


def notes(context: Context, plan: PrunePlan, stages: Sequence[StageReport]) -> tuple[str, ...]:
    """What a reader must know to read the numbers rightly."""
    trained = any(stage.training is not None for stage in stages)
    found = [f"The budget was split by the sensitivity of: {plan.sensitivity}."] if plan.sensitivity else []
    found += size_note(plan)
    if not repairs(context) and plan.parameters_after < plan.parameters_before:
        found.append("The pruned model was not repaired by least squares.")
    if trained and context.general_share:
        found.append(
            "General training text was mixed into tuning and healing, from the sources of the general control (other "
            "documents): the general rows show what is kept with that help, and the untuned parent did not have it."
        )
    if context.settings.keep_general is not None:
        found.append(
            f"General text was to cost at most {context.settings.keep_general:g} times what it costs the parent: it "
            "counted as much as the domain's in statistics, plan, repair, vocabulary and healing."
        )
    found += made_text_notes(context) if trained else []
    found += [
        f"The license of {each.name} is not known." for each in attributions(context) if each.license == "unknown"
    ]
    if "dequant" in context.parent.precision.lower():
        found.append(
            f"The parent is {context.parent.precision}: healing also mends quantization loss, which flatters every "
            "ratio to the parent. The ratio to the tuned parent is the fair one; the original in full precision was "
            "not measured."
        )
    if not context.settings.control:
        found.append("The tuned-parent control was skipped: gains over the parent include what any tuning would give.")
    for asked in context.suite.questions.values():
        if asked.derived and asked.note:
            where = " The definitions stand in the training text." if asked.seen else ""
            found.append(f"{asked.name}: {asked.note}{where}")
    return tuple(dict.fromkeys(found))


def made_text_notes(context: Context) -> list[str]:
    """What was trained on that nobody wrote so."""
    found, control = [], context.settings.control
    if asked := context.asked_documents():
        found.append(
            f"Definitions that stand in the training text were put as {len(asked):,} questions and answers in the form "
            "in which questions are scored. The untuned parent never saw that form; on questions "
            + ("the tuned parent, which did, is the fair one to compare with." if control else "it is no fair control.")
        )
    if sampled := sampled_documents(context):
        found.append(
            f"{len(sampled):,} passages of the training text were sampled from the parent after tuning on the real text"
            + (
                "; the tuned parent is the best, on dev text, of runs on the real text and a long one on all of it."
                if control
                else "."
            )
        )
    return found


def size_note(plan: PrunePlan) -> list[str]:
    """Why the size is not the one asked for, where it is not."""
    asked, removed = plan.target_parameters, plan.parameters_after < plan.parameters_before
    if not asked or not removed or abs(plan.parameters_after - asked) <= TOLERANCE * asked:
        return []
    return [
        f"{asked:,} parameters were asked for; {plan.parameters_after:,} is what {plan.method} comes to, whose steps "
        "are coarse with what it removes."
    ]
