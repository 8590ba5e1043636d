"""Tasks with free answers of a domain: read or made from the corpus, divided by document, and guarded.

Prompts of held-out documents only measure; those of training documents are trained on with their answers. A task of a
file is divided by the documents that its rows name, or by hash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from minigpt.corpus.rows import TABLE_SUFFIXES, files_in, hub_rows, read_rows
from minigpt.corpus.task_rows import prompt_of
from minigpt.corpus.task_rules import RULES
from minigpt.domain.config import DomainConfig
from minigpt.domain.tasks import RULE_METRICS, TaskConfig
from minigpt.errors import CorpusError
from minigpt.files import fingerprint
from minigpt.types import AnswerTask, Document, Prompt, Question, QuestionSet

# One in so many prompts of a file measures where they name no document and the file declares no split.
MEASURED = 3
DERIVED_NOTE = "Derived from the corpus by the rule {rule}: not written or checked by people."


def file_tasks(
    domain: DomainConfig, train: Sequence[Document], heldout: Sequence[Document], *, seed: int
) -> tuple[AnswerTask, ...]:
    """Read the tasks of a domain that come from files or the Hub, except `online` ones, and divide their prompts.

    Args:
        domain: The domain.
        train: Documents that may be trained on.
        heldout: Documents that only measure.
        seed: Seed of the division and of the draw.

    Raises:
        CorpusError: A task is missing, malformed or empty. The message names the file and line.
    """
    configs = [config for config in domain.tasks if config.rule is None and not config.online]
    train_sources, heldout_sources = {document.source for document in train}, {document.source for document in heldout}
    heldout_sources |= kept_apart(domain)
    return tuple(
        divided(config, read_task(config, domain.root), train_sources, heldout_sources, seed) for config in configs
    )


def kept_apart(domain: DomainConfig) -> set[str]:
    """Return the values of `source` whose rows are documents of their own and only measure.

    No document has such a name, and prompts that name one must not be trained on all the same.
    """
    only_measured = (item for item in domain.corpus if item.row_documents and item.split in ("heldout", "other"))
    return {
        value.strip() for item in only_measured for value in item.where.get(item.columns.get("source", "source"), ())
    }


def rule_tasks(
    domain: DomainConfig, train: Sequence[Document], heldout: Sequence[Document], *, seed: int
) -> tuple[AnswerTask, ...]:
    """Make the tasks of a domain that a rule makes from its passages.

    A document gives at most `per_document` prompts to measure on, because an interval takes prompts for independent.

    Args:
        domain: The domain.
        train: Training documents, whose prompts are trained on.
        heldout: Held-out documents, whose prompts measure.
        seed: Seed of the order and of the draw.
    """
    tasks = (_made(config, train, heldout, seed) for config in domain.tasks if config.rule is not None)
    return tuple(task for task in tasks if task.prompts)


def read_task(config: TaskConfig, root: Path) -> AnswerTask:
    """Read one task from its file or Hub data set.

    Args:
        config: The task.
        root: Folder that its path is relative to.

    Raises:
        CorpusError: It is missing, malformed or empty. The message names the file and line.
    """
    if config.hub:
        rows = hub_rows(config.hub, subset=config.subset, split=config.hub_split, revision=config.revision, limit=None)
        prompts = tuple(prompt_of(row, where, config) for where, row in rows)
    else:
        files = files_in(root / Path(config.file or "").expanduser(), suffixes=TABLE_SUFFIXES)
        prompts = tuple(prompt_of(row, where, config) for file in files for where, row in read_rows(file))
    if not prompts:
        raise CorpusError(f"The task {config.name!r} is empty.")
    if len({item.prompt for item in prompts}) < len(prompts):
        raise CorpusError(f"The task {config.name!r} has a prompt twice. Remove one, or list both answers in one row.")
    return AnswerTask(
        name=config.name,
        prompts=prompts,
        metrics=config.metrics or _metrics(prompts),
        max_tokens=config.max_tokens,
        shots=config.shots,
        chat=config.chat,
        note=config.note,
    )


def _metrics(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """Choose the metrics of a task that names none: those of labels where all prompts have choices."""
    if not any(item.answers for item in prompts):
        return ()
    return ("exact_match", "label_f1" if all(item.choices for item in prompts) else "token_f1")


def _made(config: TaskConfig, train: Sequence[Document], heldout: Sequence[Document], seed: int) -> AnswerTask:
    """Make a task by its rule: from held-out passages to measure, and from training passages to train."""
    rule = RULES[config.rule or ""]
    tested, learnt = (
        _ordered(filter(None, (rule(document, config.labels) for document in documents)), seed)
        for documents in (heldout, train)
    )
    tested = _few_a_document(tested, config.per_document)
    texts = {item.prompt for item in tested}
    return AnswerTask(
        name=config.name,
        prompts=tuple(tested[: config.limit]),
        train=tuple(item for item in learnt if item.prompt not in texts),
        metrics=config.metrics or RULE_METRICS[config.rule or ""],
        max_tokens=config.max_tokens,
        shots=config.shots,
        chat=config.chat,
        derived=True,
        note=config.note or DERIVED_NOTE.format(rule=config.rule),
    )


def divided(
    config: TaskConfig, task: AnswerTask, train: Collection[str], heldout: Collection[str], seed: int
) -> AnswerTask:
    """Divide a task that was read by its declared split, by the names of its documents, or by hash.

    Args:
        config: The task's entry in the domain file.
        task: The task, with all prompts.
        train: Names of the documents that may be trained on.
        heldout: Names of the documents that only measure; one that ends in `*` stands for all that begin so.
        seed: Seed of the division and of the draw.
    """
    prefixes = tuple(name.removesuffix("*") for name in heldout if name.endswith("*"))

    def measures(item: Prompt) -> bool:
        if config.split != "auto":
            return config.split == "heldout"
        if item.source in train or item.source in heldout:
            return item.source in heldout
        if item.source.startswith(prefixes):
            return True
        return int(fingerprint(seed, item.source or item.prompt)[:8], 16) % MEASURED == 0

    tested = _ordered((item for item in task.prompts if measures(item)), seed)
    # A prompt without answers teaches nothing.
    learnt = _ordered((item for item in task.prompts if not measures(item) and item.answers), seed)
    return replace(task, prompts=tuple(tested[: config.limit]), train=tuple(learnt))


def _ordered(prompts: Iterable[Prompt], seed: int) -> list[Prompt]:
    """Order prompts by their hashes, so that the first ones are a random sample."""
    return sorted(prompts, key=lambda item: fingerprint(seed, item.source, item.prompt))


def _few_a_document(prompts: Iterable[Prompt], most: int) -> list[Prompt]:
    """Keep the first prompts of each document."""
    counts: Counter[str] = Counter()
    kept = []
    for item in prompts:
        counts[item.source] += 1
        if counts[item.source] <= most:
            kept.append(item)
    return kept


def guarded_prompts(tasks: Iterable[AnswerTask]) -> Iterator[QuestionSet]:
    """Yield the measured prompts of tasks as question sets, which the guards of training text take.

    Prompts that a rule made are left out: they quote held-out passages, which are guarded as text.
    """
    for task in tasks:
        if not task.derived and task.prompts:
            questions = (
                Question(question=item.prompt, choices=item.answers or ("",), answer=0, source=item.source)
                for item in task.prompts
            )
            yield QuestionSet(name=task.name, questions=tuple(questions))


def task_documents(tasks: Iterable[AnswerTask], limit: int) -> list[Document]:
    """Write the training prompts of tasks with their first answers, as text to train on.

    Args:
        tasks: The tasks; those for chats are left out, because training text has no chat template.
        limit: Most prompts of each task.
    """
    return [
        Document(
            text=f"{item.prompt.rstrip()} {item.answers[0]}",
            source=item.source or f"task:{task.name}",
            license=item.license,
        )
        for task in tasks
        if not task.chat
        for item in task.train[:limit]
    ]
