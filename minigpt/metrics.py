"""Names of metrics that several rooms list."""

from __future__ import annotations

# Metrics of multiple-choice questions, and of free answers, in the order a reader wants them.
QUESTION_METRICS = ("accuracy", "accuracy_norm")
ANSWER_METRICS = (
    "exact_match",
    "token_f1",
    "label_f1",
    "rouge_l",
    "format_compliance",
    "instructions_followed",
    "constraints_followed",
)
