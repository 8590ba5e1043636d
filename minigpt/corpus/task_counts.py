"""Counts of a domain's tasks with free answers: prompts that are trained on, and prompts that only measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minigpt.corpus.tasks import divided, read_task
from minigpt.domain.config import DomainConfig
from minigpt.domain.tasks import RULE_METRICS, TaskConfig
from minigpt.types import AnswerTask


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCount:
    """Size of one task. Numbers are None where only the whole corpus tells them, or nothing was read.

    Attributes:
        name: Name of the task.
        origin: Rule, file or Hub data set that its prompts come from.
        metrics: Metrics of the task; empty where only its rows tell them and they were not read.
        prompts: Number of all prompts.
        train: Number of prompts that are trained on.
        heldout: Number of prompts that only measure.
        derived: True if a rule makes the prompts from the corpus.
        online: True if the task is read only with `--online`.
    """

    name: str
    origin: str
    metrics: tuple[str, ...]
    prompts: int | None = None
    train: int | None = None
    heldout: int | None = None
    derived: bool = False
    online: bool = False


def declared_counts(domain: DomainConfig, *, seed: int = 0) -> Iterator[TaskCount]:
    """Count the tasks of a domain as far as its task files alone tell; nothing is fetched.

    Args:
        domain: The domain.
        seed: Seed of the division.

    Raises:
        CorpusError: A task file is missing or malformed.
    """
    for config in domain.tasks:
        if config.file is None:
            metrics = config.metrics or RULE_METRICS.get(config.rule or "", ())
            yield _count(config, metrics)
            continue
        task = read_task(config, domain.root)
        # Rows that name a document follow it, and only the corpus says on which side that is.
        if config.split == "auto" and any(item.source for item in task.prompts):
            yield _count(config, task.metrics, prompts=len(task.prompts))
        else:
            parts = divided(config, task, (), (), seed)
            yield _count(config, task.metrics, prompts=len(task.prompts), parts=parts)


def corpus_counts(domain: DomainConfig, tasks: tuple[AnswerTask, ...]) -> Iterator[TaskCount]:
    """Count the tasks of a domain as its corpus holds them.

    Args:
        domain: The domain.
        tasks: Tasks of the corpus. A task that is not among them was not read, or gave no prompt.
    """
    built = {task.name: task for task in tasks}
    for config in domain.tasks:
        task = built.get(config.name)
        if task is None:
            yield _count(config, config.metrics or RULE_METRICS.get(config.rule or "", ()))
        else:
            yield _count(config, task.metrics, prompts=len(task.prompts) + len(task.train), parts=task)


def _count(
    config: TaskConfig, metrics: tuple[str, ...], *, prompts: int | None = None, parts: AnswerTask | None = None
) -> TaskCount:
    """Describe a task."""
    return TaskCount(
        name=config.name,
        origin=f"rule {config.rule}" if config.rule else config.file or config.hub or "",
        metrics=metrics,
        prompts=prompts,
        train=len(parts.train) if parts else None,
        heldout=len(parts.prompts) if parts else None,
        derived=config.rule is not None,
        online=config.online,
    )
