"""Free answers of a model to the prompts of a task, and their scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from minigpt.evaluation.items import GUESS, AnswerItems, Floats
from minigpt.evaluation.scoring import (
    answer_of,
    complies,
    exact_match,
    followed,
    label_of,
    rouge_l,
    token_f1,
)
from minigpt.files import fingerprint
from minigpt.progress import SILENT, Reporter
from minigpt.types import AnswerTask, Prompt


def answers(
    model: Any,
    tokenizer: Any,
    tasks: Mapping[str, AnswerTask],
    *,
    batch_tokens: int = 8192,
    reporter: Reporter = SILENT,
) -> dict[str, AnswerItems]:
    """Let a model answer the prompts of some tasks greedily, and score the answers.

    Args:
        model: A Hugging Face causal model, or a `minigpt.runtimes.scoring.ScoringModel`.
        tokenizer: The model's tokenizer.
        tasks: Tasks by the names of the report.
        batch_tokens: Most tokens in one batch, padding included.
        reporter: Receives the progress.
    """
    if not tasks:
        return {}
    from minigpt.evaluation.decoding import decode

    items = {}
    for name, task in tasks.items():
        texts = decode(
            model,
            tokenizer,
            [encoded(tokenizer, task, item) for item in task.prompts],
            max_tokens=task.max_tokens,
            one_line=not task.chat,
            batch_tokens=batch_tokens,
            title=answering(name),
            reporter=reporter,
        )
        items[name] = scored(task, [answer_of(text, whole=task.chat) for text in texts])
    return items


def answering(task: str) -> str:
    """Return the title of the loop that writes the answers to the prompts of a task."""
    return f"Answering {task}"


def shown_prompt(task: AnswerTask, item: Prompt, tokenizer: Any) -> str:
    """Write the text that a model reads: the examples with their answers and the prompt, or the prompt as a chat."""
    if task.chat and tokenizer.chat_template:
        message = [{"role": "user", "content": item.prompt}]
        return str(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
    examples = [f"{example.prompt} {example.answers[0]}" for example in task.train[: task.shots]]
    return "\n\n".join([*examples, item.prompt])


def encoded(tokenizer: Any, task: AnswerTask, item: Prompt) -> list[int]:
    """Tokenize the text that a model reads; a chat template has put its own marks before it."""
    is_chat = bool(task.chat and tokenizer.chat_template)
    ids = list(tokenizer.encode(shown_prompt(task, item, tokenizer), add_special_tokens=not is_chat))
    return [int(token) for token in ids]


def scored(task: AnswerTask, texts: Sequence[str]) -> AnswerItems:
    """Score the answers to a task's prompts.

    Args:
        task: The task.
        texts: The answer to each prompt.
    """
    pairs = list(zip(task.prompts, texts, strict=True))
    columns: dict[str, Floats] = {"items": (1.0,) * len(pairs)}
    scores = {"exact_match": exact_match, "token_f1": token_f1, "rouge_l": rouge_l}
    for name, score in scores.items():
        if name in task.metrics:
            columns[name] = tuple(score(text, item.answers) for item, text in pairs)
    if "label_f1" in task.metrics:
        columns["label_f1"] = _label_column(pairs)
        columns |= _guesses(pairs)
    metrics = metrics_of(task)
    if "format_compliance" in metrics:
        columns["format_compliance"] = tuple(complies(text, item.choices, item.regex) for item, text in pairs)
    if "constraints_followed" in metrics:
        counts = [followed(text, [asdict(entry) for entry in item.constraints]) for item, text in pairs]
        sizes = [len(item.constraints) for item in task.prompts]
        columns["constraints"] = tuple(map(float, sizes))
        columns["constraints_followed"] = tuple(map(float, counts))
        columns["instructions_followed"] = tuple(
            float(count == size) for count, size in zip(counts, sizes, strict=True)
        )
    return AnswerItems(keys=tuple(key_of(item) for item in task.prompts), texts=tuple(texts), columns=columns)


def metrics_of(task: AnswerTask) -> tuple[str, ...]:
    """List the metrics of a task: those that it names, and those of the form and the constraints that it asks for."""
    form = any(item.choices or item.regex for item in task.prompts)
    constrained = any(item.constraints for item in task.prompts)
    return (
        *task.metrics,
        *(("format_compliance",) if form else ()),
        *(("instructions_followed", "constraints_followed") if constrained else ()),
    )


def key_of(item: Prompt) -> str:
    """Fingerprint a prompt with everything that its score depends on."""
    return fingerprint(item.prompt, item.answers, item.choices, item.regex, item.constraints)


def _label_column(pairs: Sequence[tuple[Prompt, str]]) -> Floats:
    """Label the right answers and the model's, and write macro F1 as a mean over prompts."""
    labels = list(dict.fromkeys(label for item, _ in pairs for label in (item.choices or item.answers)))
    right = [label_of(item.answers[0], labels) for item, _ in pairs]
    return label_influences(right, [label_of(text, labels) for _, text in pairs])


def _guesses(pairs: Sequence[tuple[Prompt, str]]) -> dict[str, Floats]:
    """Score the commonest right label, given to every prompt: what a model gets that reads nothing."""
    if not pairs:
        return {}
    commonest = Counter(item.answers[0] for item, _ in pairs).most_common(1)[0][0]
    exact = tuple(exact_match(commonest, item.answers) for item, _ in pairs)
    return {f"{GUESS}exact_match": exact, f"{GUESS}label_f1": _label_column([(item, commonest) for item, _ in pairs])}


def label_influences(right: Sequence[int], ours: Sequence[int]) -> Floats:
    """Write macro F1 as the mean of one number for each item, so that intervals and pairs work as for other metrics.

    Macro F1 is the mean over K labels of A_k / B_k with A_k = 2 TP_k and B_k = 2 TP_k + FP_k + FN_k, sums over items.
    The number of item i is F + n/K sum_k (a_ik - F_k b_ik) / B_k: the value and what the item does to it to first order
    (the delta method, as for the other ratios). The second part sums to zero, so the mean is macro F1 itself.

    Args:
        right: Index of each right label.
        ours: Index of each answer's label, negative for an answer that is none.
    """
    labels = np.unique(np.asarray(right))
    is_right = np.equal.outer(np.asarray(right), labels).astype(np.float64)  # [items, labels]
    is_ours = np.equal.outer(np.asarray(ours), labels).astype(np.float64)
    above, below = 2 * is_right * is_ours, is_right + is_ours
    totals = below.sum(axis=0)
    scores = above.sum(axis=0) / totals
    effects = ((above - scores * below) / totals).mean(axis=1) * len(right)
    return tuple((scores.mean() + effects).tolist())
