"""Notes of a report on what was not measured: parts of the held-out items, and tasks without held-out prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from minigpt.domain.config import DomainConfig
from minigpt.domain.tasks import TaskConfig
from minigpt.evaluation import Suite
from minigpt.evaluation.suite import GENERAL, OTHER
from minigpt.pipeline.read import Corpora
from minigpt.types import AnswerTask, Corpus

LIMITS = (
    "The settings evaluation.heldout_bytes, evaluation.questions and evaluation.answers say how much; null means all."
)
LONGEST = "Of a long document the first passages are measured, so that it does not decide a number alone."


def part_notes(corpora: Corpora, suite: Suite, *, heldout_bytes: int | None) -> list[str]:
    """Note which held-out documents, questions and prompts were left out, where only a part of them was measured.

    Args:
        corpora: domain and general text.
        suite: the texts and questions that were measured.
        heldout_bytes: most bytes of a measured text; None where only long documents are shortened.
    """
    texts = [part for name, corpus in _named(corpora) for part in _text_parts(name, corpus, suite)]
    others = [part for name, corpus in _named(corpora) for part in _item_parts(name, corpus, suite)]
    if not texts and not others:
        return []
    why = [LONGEST] if texts and heldout_bytes is None else []
    why += [LIMITS] if others or heldout_bytes is not None else []
    return [f"Only a part of what is held out was measured: {'; '.join([*texts, *others])}. {' '.join(why)}"]


def task_notes(definitions: Iterable[tuple[DomainConfig, Corpus]], *, answers: int | None) -> list[str]:
    """Note the tasks with free answers that were left out because nothing of them measures, with the reason.

    Args:
        definitions: the definitions of domain and general text, each with its corpus.
        answers: most prompts of a task that are measured; 0 leaves all tasks out.
    """
    return [
        f"The task {definition.name}/{config.name} was left out: {reason}."
        for definition, corpus in definitions
        for config in definition.tasks
        if (reason := _reason(config, corpus.tasks, answers))
    ]


def _named(corpora: Corpora) -> Iterator[tuple[str, Corpus]]:
    """Yield the corpora by the names that their tasks have in a report."""
    yield corpora.domain.domain, corpora.domain
    if corpora.general is not None and corpora.domain.domain != GENERAL:
        yield GENERAL, corpora.general


def _text_parts(name: str, corpus: Corpus, suite: Suite) -> Iterator[str]:
    """Yield "14 of 16 held-out documents of medical" and the like for the texts of a corpus."""
    for kind, task, documents in (
        ("held-out documents", name, corpus.heldout),
        ("documents of other sources", f"{name}/{OTHER}", corpus.other),
    ):
        measured = suite.texts.get(task, ())
        size, whole = (sum(len(item.text.encode()) for item in items) for items in (measured, documents))
        if measured and size < whole:
            few, all_of_them = (len({item.source for item in items}) for items in (measured, documents))
            yield f"{few:,} of {all_of_them:,} {kind} of {name} ({100 * size / whole:.0f} % of their text)"


def _item_parts(name: str, corpus: Corpus, suite: Suite) -> Iterator[str]:
    """Yield "100 of 500 questions of medical/glossary" and the like for the questions and prompts of a corpus."""
    sets = {f"{name}/{item.name}": len(item.questions) for item in corpus.questions}
    tasks = {f"{name}/{item.name}": len(item.prompts) for item in corpus.tasks}
    for task, questions in suite.questions.items():
        if len(questions.questions) < sets.get(task, 0):
            yield f"{len(questions.questions):,} of {sets[task]:,} questions of {task}"
    for task, shown in suite.answers.items():
        if len(shown.prompts) < tasks.get(task, 0):
            yield f"{len(shown.prompts):,} of {tasks[task]:,} prompts of {task}"


def _reason(config: TaskConfig, tasks: Sequence[AnswerTask], answers: int | None) -> str:
    """Say why a task has nothing to measure on; empty where it has, and where it was not to be read."""
    task = next((item for item in tasks if item.name == config.name), None)
    if config.online or (task is not None and task.prompts and answers != 0):
        return ""
    if answers == 0:
        return "evaluation.answers is 0"
    if config.rule is not None:
        return f"its rule {config.rule} makes no prompt of the held-out documents"
    trained = len(task.train) if task is not None else 0
    if config.split == "train":
        return f"it declares `split: train`, so that all its {trained:,} prompts are trained on"
    return (
        f"none of its {trained:,} prompts is on the held-out side; add prompts, or a file of them with `split: heldout`"
    )
