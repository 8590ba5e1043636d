"""What to measure: held-out text and test questions of a domain and of the general control."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from minigpt.errors import CorpusError
from minigpt.files import fingerprint
from minigpt.types import Corpus, Document, QuestionSet

GENERAL = "general"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Texts and question sets by the task names of the report."""

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
    """Put together the suite of a domain and, if given, of the general control.

    Args:
        corpus: The domain's corpus: its held-out split and its question sets of role test.
        general: The control's corpus, reported as `general`.
        max_heldout_bytes: At most so many UTF-8 bytes of passages for each text task, for quick presets.
        max_questions: At most so many questions of each set.
        seed: Chooses the sample. What is chosen depends on the seed and the items alone, not on their order.

    Raises:
        CorpusError: there is no held-out text, or two question sets of a corpus share a name.
    """
    texts: dict[str, tuple[Document, ...]] = {}
    questions: dict[str, QuestionSet] = {}
    named = {corpus.domain: corpus, **({GENERAL: general} if general and corpus.domain != GENERAL else {})}
    for name, source in named.items():
        if not source.heldout:
            raise CorpusError(f"The corpus {name!r} has no held-out text; add sources or enlarge its held-out split.")
        texts[name] = sample_documents(source.heldout, max_heldout_bytes, seed=seed)
        for asked in source.questions:
            if asked.role != "test" or not asked.questions:
                continue
            task = f"{name}/{asked.name}"
            if task in questions:
                raise CorpusError(f"Two question sets are called {task!r}; rename one in the domain file.")
            questions[task] = sample_questions(asked, max_questions, seed=seed)
    return Suite(texts=texts, questions=questions)


def sample_documents(documents: Sequence[Document], limit: int | None, *, seed: int) -> tuple[Document, ...]:
    """Passages in the order of their hashes until the next would exceed `limit` bytes; at least one.

    Passages rather than whole documents: the same bytes then come from more documents, which narrows the interval.
    """
    if limit is None:
        return tuple(documents)
    taken: list[int] = []
    size = 0
    for index in _shuffled([(item.source, item.text) for item in documents], seed):
        size += len(documents[index].text.encode())
        if taken and size > limit:
            break
        taken.append(index)
    return tuple(documents[index] for index in sorted(taken))


def sample_questions(asked: QuestionSet, limit: int | None, *, seed: int) -> QuestionSet:
    """The `limit` questions of the smallest hashes, in their old order."""
    if limit is None or len(asked.questions) <= limit:
        return asked
    order = _shuffled([(item.question, item.choices) for item in asked.questions], seed)
    return replace(asked, questions=tuple(asked.questions[index] for index in sorted(order[:limit])))


def _shuffled(items: Iterable[tuple[object, ...]], seed: int) -> list[int]:
    hashes = [fingerprint(seed, *item) for item in items]
    return sorted(range(len(hashes)), key=lambda index: (hashes[index], index))
