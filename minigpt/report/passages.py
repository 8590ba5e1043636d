"""Counts of passages and questions as a sentence: how many were read, and what was left out for which reason."""

from __future__ import annotations

from collections.abc import Mapping

# Reasons by the keys of `corpus_counts`; `control_` before a key says that general text was the cause.
_REASONS = {
    "empty": "empty",
    "beyond_max_documents": "beyond the limit on documents",
    "exact_duplicates": "repeated word for word",
    "near_duplicates": "nearly the same as another",
    "declared_elsewhere": "declared for another split than their document",
    "irrelevant": "unlike the domain's text",
    "overlaps_heldout": "that overlap held-out or dev text",
    "overlaps_questions": "that contain a test question or prompt",
    "control_shares_document": "of documents that the other of domain and general text measures on",
    "control_overlaps_heldout": "that overlap held-out or dev text of domain or general text",
    "control_overlaps_questions": "that contain a test question or prompt of domain or general text",
}
_QUESTIONS = {"dropped_questions": "questions left out as repeated, ambiguous, or both for dev and for tests"}


def passages_sentence(counts: Mapping[str, int]) -> str:
    """Write the counts of a corpus without those that are zero; unknown names are written as they are.

    Args:
        counts: Passages and questions that each cleaning step read or dropped, as in `BuildReport.corpus_counts`.
    """
    parts = [f"{counts['read']:,} passages read"] if "read" in counts else []
    left_out = [f"{count:,} {_REASONS[name]}" for name, count in counts.items() if count and name in _REASONS]
    if left_out:
        parts.append(f"left out: {', '.join(left_out)}")
    known = {"read", *_REASONS}
    parts += [
        f"{count:,} {_QUESTIONS.get(name, name.replace('_', ' '))}"
        for name, count in counts.items()
        if count and name not in known
    ]
    return "; ".join(parts)
