"""Scores of a parent that later builds read again instead of measuring: one file for each text or set of questions.

Many builds start from the same parent and measure it on the same general text. Files are named by fingerprints of
everything that the scores depend on. They hold sources' names and numbers, never text: answers to the prompts of tasks
may quote a private text, so they are not kept and each build asks anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from minigpt.environment import home
from minigpt.errors import MiniGPTError
from minigpt.evaluation.items import ItemScores, QuestionItems, RecitationItems, TextItems
from minigpt.evaluation.suite import Suite
from minigpt.files import fingerprint, read_json, write_json
from minigpt.progress import SILENT, Reporter

# Version of measuring: raised when it changes, so that kept scores are measured again.
VERSION = 2
# Folder below the data folder.
FOLDER = "scores"

Items = TypeVar("Items", TextItems, QuestionItems, RecitationItems)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptText:
    """File of a text's scores.

    Attributes:
        key: Fingerprint of everything that they depend on.
        digest: Fingerprint of the scores themselves.
        items: The scores.
    """

    key: str
    digest: str
    items: TextItems


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptQuestions:
    """File of the scores of a set of questions; the fields are those of :class:`KeptText`."""

    key: str
    digest: str
    items: QuestionItems


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRecitation:
    """File of what was recited of some passages; the fields are those of :class:`KeptText`."""

    key: str
    digest: str
    items: RecitationItems


def evaluate_kept(
    suite: Suite,
    measure: Callable[[Suite], ItemScores],
    conditions: Mapping[str, object],
    *,
    anew: bool = False,
    reporter: Reporter = SILENT,
) -> ItemScores:
    """Read the scores that earlier builds kept, measure the others, and keep these.

    A damaged file is measured again and replaced. A file that cannot be written is noted and stops nothing.

    Args:
        suite: Texts and questions by task name.
        measure: Scores a model on a part of the suite.
        conditions: Everything else that the scores depend on: the model, what stands before a text, the settings, the
            device and its precision, versions of libraries.
        anew: Measure everything again.
        reporter: Told which scores were read.
    """
    keys = _keys(suite, conditions)
    earlier = ItemScores() if anew else _read(suite, keys)
    missing = _without(suite, earlier)
    if names := [*earlier.texts, *earlier.questions]:
        reporter.note(f"Measured by an earlier build: {', '.join(names)}.")
    if not (missing.texts or missing.questions or missing.recitations or missing.answers):
        return _in_order(suite, earlier, ItemScores())
    new = measure(missing)
    for task, items in new.texts.items():
        _write(KeptText(key=keys[task], digest=fingerprint(items), items=items), reporter)
    for task, answers in new.questions.items():
        _write(KeptQuestions(key=keys[task], digest=fingerprint(answers), items=answers), reporter)
    for task, recited in new.recitations.items():
        _write(KeptRecitation(key=keys[_recited(task)], digest=fingerprint(recited), items=recited), reporter)
    return _in_order(suite, earlier, new)


def _recited(task: str) -> str:
    """Name the recitation of a task, whose text is measured under the task's own name."""
    return f"{task}, recitation"


def _keys(suite: Suite, conditions: Mapping[str, object]) -> dict[str, str]:
    """Fingerprint what the scores of every task depend on; the name of a task does not count."""
    common = (VERSION, dict(conditions))
    texts = {task: fingerprint(*common, "text", documents) for task, documents in suite.texts.items()}
    questions = {task: fingerprint(*common, "questions", item.questions) for task, item in suite.questions.items()}
    recited = {
        _recited(task): fingerprint(*common, "recitation", passages) for task, passages in suite.recitations.items()
    }
    return texts | questions | recited


def _path(key: str) -> Path:
    """Return the file of a key."""
    return home() / FOLDER / f"{key}.json"


def _read(suite: Suite, keys: Mapping[str, str]) -> ItemScores:
    """Read the kept scores of a suite's tasks, as far as there are any."""
    texts = {task: _checked(keys[task], KeptText) for task in suite.texts}
    questions = {task: _checked(keys[task], KeptQuestions) for task in suite.questions}
    recited = {task: _checked(keys[_recited(task)], KeptRecitation) for task in suite.recitations}
    return ItemScores(
        recitations={task: kept.items for task, kept in recited.items() if kept is not None},
        texts={task: kept.items for task, kept in texts.items() if kept is not None},
        questions={task: kept.items for task, kept in questions.items() if kept is not None},
    )


Kept = TypeVar("Kept", KeptText, KeptQuestions, KeptRecitation)


def _checked(key: str, kind: type[Kept]) -> Kept | None:
    """Read a file of kept scores; None if it is missing, damaged or holds other scores than its name says."""
    try:
        kept = read_json(_path(key), kind)
    except (MiniGPTError, OSError):
        return None
    return kept if kept.key == key and kept.digest == fingerprint(kept.items) else None


def _write(kept: KeptText | KeptQuestions | KeptRecitation, reporter: Reporter) -> None:
    """Write a file of kept scores."""
    try:
        write_json(_path(kept.key), kept)
    except (MiniGPTError, OSError) as error:
        reporter.note(f"The parent's scores were not kept for later builds: {error}")


def _without(suite: Suite, scores: ItemScores) -> Suite:
    """Return the tasks of a suite that have no scores yet."""
    return replace(
        suite,
        texts={task: documents for task, documents in suite.texts.items() if task not in scores.texts},
        questions={task: questions for task, questions in suite.questions.items() if task not in scores.questions},
        recitations={task: texts for task, texts in suite.recitations.items() if task not in scores.recitations},
    )


def _in_order(suite: Suite, earlier: ItemScores, new: ItemScores) -> ItemScores:
    """Put earlier and new scores together, in the order of the suite."""
    return replace(
        new,
        texts=_merged(suite.texts, earlier.texts, new.texts),
        questions=_merged(suite.questions, earlier.questions, new.questions),
        recitations=_merged(suite.recitations, earlier.recitations, new.recitations),
    )


def _merged(tasks: Mapping[str, object], first: Mapping[str, Items], second: Mapping[str, Items]) -> dict[str, Items]:
    """Merge the items of two parts in the order of `tasks`."""
    both = {**first, **second}
    return {task: both[task] for task in tasks}
