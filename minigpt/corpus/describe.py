"""Statistics of a corpus, for `minigpt corpus stats`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigpt.corpus.coverage import coverage_records, seen_runs
from minigpt.corpus.dedup import count_words
from minigpt.corpus.store import SPLITS
from minigpt.files import to_plain
from minigpt.types import Corpus, Document


def statistics(corpus: Corpus) -> dict[str, Any]:
    """Count the documents, passages, bytes and words of each split, and describe sources, question sets and tasks.

    Returns:
        Plain data for JSON: `domain`, `fingerprint`, `splits`, `counts`, `sources`, `coverage` (of the measured text by
        the domain's own training and calibration text), `questions` and `tasks`.
    """
    measured = {corpus.domain: corpus.heldout, **({f"{corpus.domain}/other": corpus.other} if corpus.other else {})}
    return {
        "domain": corpus.domain,
        "fingerprint": corpus.fingerprint,
        "splits": {split: _measure(getattr(corpus, split)) for split in SPLITS},
        "counts": dict(corpus.counts),
        "sources": to_plain(corpus.attributions),
        "coverage": to_plain(coverage_records(seen_runs(measured, [*corpus.calibration, *corpus.train]))),
        "questions": [
            {
                "name": questions.name,
                "questions": len(questions.questions),
                "role": questions.role,
                "derived": questions.derived,
                "seen": questions.seen,
                "note": questions.note,
                "licenses": sorted({question.license for question in questions.questions}),
            }
            for questions in corpus.questions
        ],
        "tasks": [
            {
                "name": task.name,
                "prompts": len(task.prompts),
                "train": len(task.train),
                "metrics": list(task.metrics),
                "derived": task.derived,
                "note": task.note,
            }
            for task in corpus.tasks
        ],
    }


def _measure(documents: Sequence[Document]) -> dict[str, int]:
    """Count the documents, passages, bytes and words of one split."""
    return {
        "documents": len({document.source for document in documents}),
        "passages": len(documents),
        "bytes": sum(len(document.text.encode()) for document in documents),
        "words": sum(count_words(document.text) for document in documents),
    }
