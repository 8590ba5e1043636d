"""Tasks of a report: the texts and question sets that are measured, their order and their names for people."""

from __future__ import annotations

GENERAL = "general"
OTHER = "other"
UNSEEN = "unseen"
TRAIN = "train"

# Endings of the tasks that are texts, in the order a reader wants them; all other endings are question sets.
_TEXTS = ("", OTHER, UNSEEN, f"{OTHER}/{UNSEEN}")


def is_seen(task: str) -> bool:
    """Check whether a question set asks about text that was trained on, and so tests memory."""
    return task.endswith("_seen")


def is_text(task: str) -> bool:
    """Check whether a task is held-out text, rather than a question set."""
    return task.partition("/")[2] in _TEXTS


def task_rank(domain: str, task: str) -> int:
    """Give the position of a task: the domain's texts, general texts, the domain's questions, general questions, rest.

    Args:
        domain: Name of the domain.
        task: Task that was measured.
    """
    head, _, tail = task.partition("/")
    owners = (domain, GENERAL)
    if head not in owners or tail == TRAIN:
        return len(owners) * (len(_TEXTS) + 1)
    owner = owners.index(head)
    return owner * len(_TEXTS) + _TEXTS.index(tail) if tail in _TEXTS else len(owners) * len(_TEXTS) + owner


def text_name(task: str, *, general_share: float | None) -> str:
    """Name a text by what it is, e.g. `other sources`; empty for question sets.

    Args:
        task: Task that was measured.
        general_share: Share of general text in the training text; None if it is not known.
    """
    head, _, tail = task.partition("/")
    if not is_text(task):
        return ""
    if tail.endswith(UNSEEN):
        return "new wording"
    if head == GENERAL:
        trained = general_share and tail != OTHER
        return "kind trained on" if trained else "not trained on" if tail or general_share == 0 else ""
    return "other sources" if tail == OTHER else "own sources"
