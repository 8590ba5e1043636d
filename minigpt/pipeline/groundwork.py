"""Groundwork of a build: the text, parent and tuned parent that all sizes and methods of a domain share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from minigpt import assets
from minigpt.corpus.coverage import SeenRuns
from minigpt.evaluation import Suite, suite_for
from minigpt.evaluation.suite import without_answers
from minigpt.pipeline.controls import Controls, controls_of
from minigpt.pipeline.coverage import coverage_of, unseen_parts
from minigpt.pipeline.measure import measure
from minigpt.pipeline.read import Corpora, check_bound, read_corpora
from minigpt.pipeline.repeats import Repeat, repeat_tuning
from minigpt.pipeline.run import Run, SavedModel
from minigpt.pipeline.sampling import add_sampled, needs_writer
from minigpt.pipeline.source import source_of
from minigpt.pipeline.text import PlanningText, TrainingText, planning_text, training_text
from minigpt.pipeline.tuning import TunedParent, tune_briefly, tune_parent
from minigpt.pipeline.twin import add_twin


@dataclass(frozen=True, slots=True, kw_only=True)
class Groundwork:
    """The values that planning, pruning, healing and the report start from.

    Attributes:
        corpora: domain and general text.
        suite: the texts and questions that are measured.
        parent: the untuned parent.
        planning: the text that decides what is kept.
        text: the text that is trained on, sampled passages included.
        controls: parent and tuned parent, measured; `controls.source` is the model that is pruned and that teaches.
        tuned: the runs of the tuned parent; None where it was left out.
        repeats: tuned parents with other seeds.
        coverage: runs of words of each measured text that stand in the training text.
    """

    corpora: Corpora
    suite: Suite
    parent: assets.Parent
    planning: PlanningText
    text: TrainingText
    controls: Controls
    tuned: TunedParent | None = None
    repeats: tuple[Repeat, ...] = ()
    coverage: Mapping[str, SeenRuns] = field(default_factory=dict)


def read(run: Run) -> tuple[Corpora, Suite]:
    """Read the text of a build, and choose the texts and questions that are measured.

    Raises:
        CorpusError: the text cannot be read, or too little of it is left.
        ConfigError: a bound on general text cannot be kept or measured.
    """
    settings = run.settings
    corpora = read_corpora(
        run.domain,
        run.general,
        settings.corpus,
        seed=run.options.seed,
        workspace=run.workspace,
        state=run.state,
        reporter=run.reporter,
    )
    check_bound(run.domain, corpora.general, settings.keep_general)
    suite = suite_for(
        corpora.domain,
        corpora.general,
        max_heldout_bytes=settings.evaluation.heldout_bytes,
        max_questions=settings.evaluation.questions,
        max_answers=settings.evaluation.answers,
        samples=settings.evaluation.samples if settings.evaluation.sample_tokens else 0,
        recitations=settings.evaluation.recitation,
        seed=run.options.seed,
    )
    # A sweep draws texts and questions only, and its points are many.
    return corpora, suite if run.shared is None else without_answers(suite)


def lay_groundwork(
    run: Run, corpora: Corpora, suite: Suite, parent: assets.Parent, *, trains: bool = True
) -> Groundwork:
    """Measure the parent, gather the training text, and train the controls that the settings want.

    Args:
        run: the build.
        corpora: domain and general text.
        suite: the texts and questions that are measured.
        parent: the untuned parent.
        trains: whether a specialist will be trained; if not, no text is sampled for it.
    """
    untuned = SavedModel(path=parent.path, key=parent.fingerprint)
    text, tuned = training_text_and_tuned_parent(run, corpora, parent, trains=trains)
    coverage = coverage_of(corpora, suite, text)
    suite = replace(suite, parts=unseen_parts(corpora.domain.domain, coverage))
    measured = measure(run, suite, "parent", untuned)
    controls = controls_of(measured, untuned)
    repeats: tuple[Repeat, ...] = ()
    if tuned is not None:
        controls = controls_of(
            measured,
            source_of(run, parent, tuned),
            tuned=measure(run, suite, "parent_tuned", tuned.model),
            tuning=tuned.training,
            tuning_seconds=tuned.seconds,
        )
        repeats = repeat_tuning(run, suite, parent, text, tuned)
    if trains:
        controls = add_twin(run, corpora, suite, parent, text, controls)
    return Groundwork(
        corpora=corpora,
        suite=suite,
        parent=parent,
        planning=planning_text(corpora, run.settings),
        text=text,
        controls=controls,
        tuned=tuned,
        repeats=repeats,
        coverage=coverage,
    )


def training_text_and_tuned_parent(
    run: Run, corpora: Corpora, parent: assets.Parent, *, trains: bool
) -> tuple[TrainingText, TunedParent | None]:
    """Gather the training text, and tune the parent on it.

    A briefly tuned parent writes a part of the text, and the tuned parent then reads all of it.

    Args:
        run: the build.
        corpora: domain and general text.
        parent: the untuned parent.
        trains: whether a specialist will be trained; if not, text is sampled only for the tuned parent.

    Returns:
        The training text, and the tuned parent (None: the settings leave it out).
    """
    text = training_text(corpora, run.settings, seed=run.text_seed)
    writer = tune_briefly(run, parent, text) if needs_writer(run, parent, trains=trains) else None
    if writer is not None or trains:
        text = add_sampled(run, corpora, parent, text, writer)
    tuned = tune_parent(run, parent, text, writer) if writer is not None and run.settings.tuned_parent else None
    return text, tuned
