"""Suites to measure on: held-out text and test questions of a domain and of the general text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from minigpt.errors import CorpusError
from minigpt.files import fingerprint
from minigpt.types import Corpus, Document, QuestionSet

GENERAL = "general"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Texts and question sets to measure on, by the task names of the report."""

    texts: Mapping[str, tuple[Document, ...]] = field(default_factory=dict)
    questions: Mapping[str, QuestionSet] = field(default_factory=dict)


def suite_for(
    corpus: Corpus,
    general: Corpus | None = None,
    *,
    max_heldout_bytes: int | None = None,
    max_questions: int | None = None,
    seed: int = 0,
) -> Suite:
    """Put together the suite of a domain and, if given, of general text.

    Args:
        corpus: The domain's corpus; its held-out split and its question sets of role test are used.
        general: Corpus of general text, reported as `general`.
        max_heldout_bytes: Most UTF-8 bytes of passages for each text task, for quick presets.
        max_questions: Most questions of each set.
        seed: Seed of the sample. The sample depends only on the seed and the items, not on their order.

    Raises:
        CorpusError: There is no held-out text, or two question sets of a corpus share a name.
    """
    texts: dict[str, tuple[Document, ...]] = {}
    questions: dict[str, QuestionSet] = {}
    corpora = {corpus.domain: corpus, **({GENERAL: general} if general and corpus.domain != GENERAL else {})}
    for name, source in corpora.items():
        if not source.heldout:
            raise CorpusError(f"The corpus {name!r} has no held-out text; add sources or enlarge its held-out split.")
        texts[name] = sample_documents(source.heldout, max_heldout_bytes, seed=seed)
        for question_set in source.questions:
            if question_set.role != "test" or not question_set.questions:
                continue
            task = f"{name}/{question_set.name}"
            if task in questions:
                raise CorpusError(f"Two question sets are called {task!r}; rename one in the domain file.")
            questions[task] = sample_questions(question_set, max_questions, seed=seed)
    return Suite(texts=texts, questions=questions)


def sample_documents(documents: Sequence[Document], limit: int | None, *, seed: int) -> tuple[Document, ...]:
    """Sample passages up to `limit` UTF-8 bytes, at least one; None takes them all.

    Passages are taken in the order of their hashes until the next one would exceed the limit. They are passages rather
    than whole documents: the same bytes then come from more documents, which narrows the interval.
    """
    if limit is None:
        return tuple(documents)
    indices: list[int] = []
    size = 0
    for index in _shuffled([(item.source, item.text) for item in documents], seed):
        size += len(documents[index].text.encode())
        if indices and size > limit:
            break
        indices.append(index)
    return tuple(documents[index] for index in sorted(indices))


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
