"""Suites to measure on: held-out text, text of other sources and test questions of a domain and of the general text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from minigpt.domain.checks import TEXT_TASKS
from minigpt.errors import CorpusError
from minigpt.evaluation.opening import sample_for_opening
from minigpt.evaluation.recitation import parts_to_recite
from minigpt.files import fingerprint
from minigpt.types import AnswerTask, Corpus, Document, QuestionSet

GENERAL = "general"
OTHER = "other"
TRAIN = "train"
# Largest share of the bytes of a measured text that may come from one document.
LARGEST_SHARE = 0.1
# Words of a passage that a sample goes on from.
BEGINNING_WORDS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Texts and question sets to measure on, by the task names of the report.

    Attributes:
        texts: Passages to read.
        questions: Question sets to ask.
        answers: Tasks with free answers.
        samples: Beginnings of held-out passages that models continue for people to read; they are not scored.
        recitations: Passages whose beginnings a model has to complete (`minigpt.evaluation.recitation`).
        parts: Text tasks that are parts of others: for each, the whole and the sources of its documents.
        dev: Beginnings of dev passages, on which each model's opening is chosen; it is not measured.
    """

    texts: Mapping[str, tuple[Document, ...]] = field(default_factory=dict)
    questions: Mapping[str, QuestionSet] = field(default_factory=dict)
    answers: Mapping[str, AnswerTask] = field(default_factory=dict)
    samples: tuple[str, ...] = ()
    recitations: Mapping[str, tuple[Document, ...]] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    dev: tuple[Document, ...] = ()


def suite_for(
    corpus: Corpus,
    general: Corpus | None = None,
    *,
    max_heldout_bytes: int | None = None,
    max_questions: int | None = None,
    max_answers: int | None = None,
    samples: int = 0,
    recitations: int = 0,
    seed: int = 0,
) -> Suite:
    """Put together the suite of a domain and, if given, of general text.

    Args:
        corpus: The domain's corpus; its held-out split, its text of other sources (task `<domain>/other`) and its
            question sets of role test are used.
        general: Corpus of general text, reported as `general`.
        max_heldout_bytes: Most UTF-8 bytes of passages for each text task, for quick presets.
        max_questions: Most questions of each set.
        max_answers: Most prompts of each task with free answers; 0 leaves these tasks out.
        samples: Beginnings of held-out passages of the domain to continue.
        recitations: Passages of the training text, and as many of the held-out text, to complete from memory.
        seed: Seed of the sample. The sample depends only on the seed and the items, not on their order.

    Raises:
        CorpusError: There is no held-out text, or two tasks share a name.
    """
    texts: dict[str, tuple[Document, ...]] = {}
    questions: dict[str, QuestionSet] = {}
    corpora = {corpus.domain: corpus, **({GENERAL: general} if general and corpus.domain != GENERAL else {})}
    for name, source in corpora.items():
        if not source.heldout:
            raise CorpusError(f"The corpus {name!r} has no held-out text; add sources or enlarge its held-out split.")
        texts[name] = sample_documents(source.heldout, max_heldout_bytes, seed=seed)
        if source.other:
            texts[f"{name}/{OTHER}"] = sample_documents(source.other, max_heldout_bytes, seed=seed)
        for question_set in source.questions:
            if question_set.role != "test" or not question_set.questions:
                continue
            task = f"{name}/{question_set.name}"
            if task in questions or question_set.name in TEXT_TASKS:
                raise CorpusError(f"Two tasks are called {task!r}; rename the question set in the domain file.")
            questions[task] = sample_questions(question_set, max_questions, seed=seed)
    answers = {
        f"{name}/{task.name}": shortened(task, max_answers) for name, source in corpora.items() for task in source.tasks
    }
    recited = {f"{corpus.domain}/{TRAIN}": corpus.train, corpus.domain: corpus.heldout}
    passages = {task: passages_to_recite(documents, recitations, seed=seed) for task, documents in recited.items()}
    # Without both, memory and guessing cannot be told apart.
    return Suite(
        texts=texts,
        questions=questions,
        answers={task: item for task, item in answers.items() if item.prompts},
        samples=beginnings(corpus.heldout, samples, seed=seed),
        recitations=passages if all(passages.values()) else {},
        dev=sample_for_opening(corpus.dev),
    )


def without_answers(suite: Suite) -> Suite:
    """Leave out what a model has to be decoded for: tasks with free answers, and samples."""
    return replace(suite, answers={}, samples=())


def shortened(task: AnswerTask, limit: int | None) -> AnswerTask:
    """Keep the first prompts of a task, which are a random sample, and of its training prompts those that are shown."""
    examples = () if task.chat else task.train[: task.shots]
    return replace(task, prompts=task.prompts[:limit], train=examples)


def beginnings(documents: Sequence[Document], number: int, *, seed: int) -> tuple[str, ...]:
    """Draw passages of different documents, and take the first words of each.

    Args:
        documents: Passages to choose from.
        number: Number of beginnings; fewer where there are fewer documents.
        seed: Seed of the draw.
    """
    drawn: dict[str, str] = {}
    for index in _shuffled([(item.source, item.text) for item in documents], seed) if number else []:
        words = documents[index].text.split()
        if len(words) >= 2 * BEGINNING_WORDS and documents[index].source not in drawn:
            drawn[documents[index].source] = " ".join(words[:BEGINNING_WORDS])
        if len(drawn) == number:
            break
    return tuple(drawn.values())


def passages_to_recite(documents: Sequence[Document], number: int, *, seed: int) -> tuple[Document, ...]:
    """Sample passages that are long enough to be completed, from as many documents as possible.

    Args:
        documents: Passages to choose from.
        number: Number of passages to take; fewer where there are no more.
        seed: Seed of the sample.
    """
    usable = [document for document in documents if parts_to_recite(document.text) is not None]
    order = _shuffled([(item.source, item.text) for item in usable], seed) if number else []
    taken: Counter[str] = Counter()
    rounds = []
    for index in order:
        rounds.append((taken[usable[index].source], index))
        taken[usable[index].source] += 1
    first = sorted(rounds, key=lambda entry: entry[0])[:number]
    return tuple(usable[index] for index in sorted(index for _, index in first))


def sample_documents(documents: Sequence[Document], limit: int | None, *, seed: int) -> tuple[Document, ...]:
    """Sample passages up to `limit` UTF-8 bytes, at least one; None takes them all.

    Passages are taken in the order of their hashes until the next one would exceed the limit. They are passages rather
    than whole documents: the same bytes then come from more documents, which narrows the interval. No document gives
    more than `LARGEST_SHARE` of the bytes, or twice its equal share where there are few documents; of a longer one the
    first passages are taken, at least one. Otherwise one long document would decide the number and its interval.
    """
    order = _shuffled([(item.source, item.text) for item in documents], seed)
    share = max(LARGEST_SHARE, 2 / max(1, len({item.source for item in documents})))
    allowed = math.inf
    while True:
        indices, sizes = _take(documents, order, limit, allowed)
        lower = share * sum(sizes.values())
        if max(sizes.values(), default=0) <= lower or lower >= allowed:
            return tuple(documents[index] for index in sorted(indices))
        allowed = lower


def _take(
    documents: Sequence[Document], order: Sequence[int], limit: int | None, allowed: float
) -> tuple[list[int], dict[str, int]]:
    """Take passages in order, up to `limit` bytes in all and `allowed` bytes of each document, at least one of it.

    Returns:
        Indices of the passages, and the bytes of each document.
    """
    indices: list[int] = []
    sizes: dict[str, int] = {}
    for index in order:
        source, size = documents[index].source, len(documents[index].text.encode())
        if source in sizes and sizes[source] + size > allowed:
            continue
        if indices and limit is not None and sum(sizes.values()) + size > limit:
            break
        indices.append(index)
        sizes[source] = sizes.get(source, 0) + size
    return indices, sizes


def sample_questions(question_set: QuestionSet, limit: int | None, *, seed: int) -> QuestionSet:
    """Sample the `limit` questions with the smallest hashes, in their original order; None takes them all."""
    if limit is None or len(question_set.questions) <= limit:
        return question_set
    order = _shuffled([(item.question, item.choices) for item in question_set.questions], seed)
    return replace(question_set, questions=tuple(question_set.questions[index] for index in sorted(order[:limit])))


def _shuffled(items: Iterable[tuple[object, ...]], seed: int) -> list[int]:
    """Order the indices of the items by their hashes."""
    hashes = [fingerprint(seed, *item) for item in items]
    return sorted(range(len(hashes)), key=lambda index: (hashes[index], index))
