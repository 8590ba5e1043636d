"""Coverage of a build's measured texts by everything that its models train on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from minigpt.corpus.coverage import SeenRuns, seen_runs
from minigpt.evaluation import Suite
from minigpt.pipeline.read import Corpora
from minigpt.pipeline.text import TrainingText
from minigpt.results import BuildReport
from minigpt.types import Document

# Fewest documents without seen text that are worth a task of their own.
FEWEST = 3


def coverage_of(corpora: Corpora, suite: Suite, text: TrainingText) -> dict[str, SeenRuns]:
    """Count the runs of words of each measured text that stand in the training text or the calibration text.

    Args:
        corpora: domain and general text.
        suite: the texts that are measured.
        text: the training text, generated parts included.
    """
    return seen_runs(suite.texts, _training(corpora, text))


def unseen_parts(domain: str, coverage: Mapping[str, SeenRuns]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name the task `<domain>/unseen` and its documents: those of which the training text holds next to nothing.

    There is no such task where they are fewer than 3, or all documents of the domain's text.

    Args:
        domain: the domain's name.
        coverage: seen runs by task.

    Returns:
        The task with the task that it is a part of and the sources of its documents.
    """
    counts = coverage.get(domain)
    if counts is None or not FEWEST <= len(counts.unseen) < len(counts.keys):
        return {}
    return {f"{domain}/unseen": (domain, counts.unseen)}


def every_text(corpora: Corpora, text: TrainingText) -> Iterator[Document]:
    """Yield every passage of a build: those that are trained on, and those that guide or measure only."""
    yield from _training(corpora, text)
    for corpus in (corpora.domain, corpora.general):
        if corpus is not None:
            yield from (*corpus.train, *corpus.dev, *corpus.heldout, *corpus.other)


def without_recited(report: BuildReport, texts: Iterable[Document]) -> BuildReport:
    """Leave out the samples that repeat 8 words in a row of a text, so that a card gives nothing of it away.

    Args:
        report: the report that the card is made from.
        texts: passages that must not be given away.
    """
    samples: dict[str, Sequence[Document]] = {
        stage.stage: (Document(text=stage.sample, source=stage.stage),) for stage in report.stages
    }
    recited = {name for name, runs in seen_runs(samples, texts).items() if sum(runs.seen)}
    return replace(
        report,
        stages=tuple(
            replace(stage, sample="" if stage.stage in recited else stage.sample, samples=()) for stage in report.stages
        ),
        # These are held-out text and its continuations, which no card shows.
        sample_prompts=(),
        exchanges=(),
    )


def _training(corpora: Corpora, text: TrainingText) -> Iterator[Document]:
    """Yield every passage that decides what a model becomes, but for dev text."""
    yield from corpora.domain.calibration
    if corpora.general is not None:  # the plan may read it even where nothing general is trained on
        yield from corpora.general.calibration
    yield from text.real
    yield from text.definitions
    yield from text.answers
    yield from text.sampled
