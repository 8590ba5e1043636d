"""Multiple choice by log-likelihood: a question is read once, its choices branch off from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigpt.errors import CorpusError
from minigpt.evaluation.lm import Row, log_probabilities, prefix_token, window_limit
from minigpt.progress import SILENT, Reporter
from minigpt.types import Question

TEMPLATE = "Question: {question}\nAnswer:"

BRANCHING = frozenset(
    {"gemma", "gemma2", "gemma3_text", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3", "smollm3"}
)
"""Model types whose only mixing between tokens is attention that obeys a mask and position ids given to it."""


def encode_pair(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokenize a prompt and its continuation as lm-eval does: the whole text, cut after the prompt's own tokens.

    Spaces at the end of the prompt move to the continuation, since tokenizers put a space before its word. An empty
    prompt becomes the prefix token.
    """
    stripped = context.rstrip()
    continuation, context = context[len(stripped) :] + continuation, stripped
    if not context:
        return [prefix_token(tokenizer)], list(tokenizer.encode(continuation, add_special_tokens=False))
    before = list(tokenizer.encode(context))
    return before, list(tokenizer.encode(context + continuation))[len(before) :]


def choice_loglikelihoods(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    template: str = TEMPLATE,
    batch_tokens: int = 8192,
    window: int = 1024,
    share_prefix: bool = True,
    title: str = "Questions",
    reporter: Reporter = SILENT,
) -> list[NDArray[np.float64]]:
    """Natural log-likelihood of each choice after its question, an array for each question.

    With `share_prefix` the question is read once for all choices, in one forward pass with a tree-shaped attention
    mask, wherever that is exact for the model; otherwise, and for questions longer than the window (cut on the left),
    each choice is a row of its own. Both give the same numbers.

    Raises:
        CorpusError: a question has fewer than two choices, an empty one, or an answer that is none of them.
    """
    limit = window_limit(model, window)
    branching = _branching_limit(model, limit) if share_prefix else 0
    rows: list[Row] = []
    first = [0]
    for question in questions:
        _check(question)
        prompt = template.format(question=question.question)
        pairs = [encode_pair(tokenizer, prompt, f" {choice}") for choice in question.choices]
        rows += _rows(pairs, first[-1], limit=limit, branching=branching)
        first.append(first[-1] + len(pairs))
    sums = log_probabilities(model, rows, first[-1], batch_tokens=batch_tokens, title=title, reporter=reporter)
    return np.split(sums, first[1:-1]) if questions else []


def picks(question: Question, loglikelihoods: NDArray[np.float64]) -> tuple[int, int]:
    """The choice of greatest likelihood, raw and per UTF-8 byte of the choice (lm-eval's `acc` and `acc_bytes`)."""
    lengths = np.array([len(choice.encode()) for choice in question.choices])
    return int(loglikelihoods.argmax()), int((loglikelihoods / lengths).argmax())


def _check(question: Question) -> None:
    named = f"Question {question.question[:60]!r}"
    if len(question.choices) < 2 or not all(choice.strip() for choice in question.choices):
        raise CorpusError(f"{named} needs at least two choices, none of them empty; mend the question file.")
    if not 0 <= question.answer < len(question.choices):
        raise CorpusError(
            f"{named} has answer {question.answer}, which is none of its {len(question.choices)} choices."
        )


def _branching_limit(model: Any, limit: int) -> int:
    """The longest prompt plus choice for which a tree-shaped mask is exact; 0 if it never is.

    A mask given by us replaces a sliding window's, so that no path may be longer than that window.
    """
    config = model.config
    if config.model_type not in BRANCHING or config._attn_implementation not in {"sdpa", "eager"}:
        return 0
    return min(limit, getattr(config, "sliding_window", None) or limit)


def _rows(pairs: Sequence[tuple[list[int], list[int]]], first: int, *, limit: int, branching: int) -> list[Row]:
    """The rows that score one question, whose choices are the owners `first`, `first + 1`, ..."""
    trunk = pairs[0][0]
    shared = all(before == trunk for before, _ in pairs)
    if shared and max(len(trunk) + len(after) - 1 for _, after in pairs) <= branching:
        return [_tree(trunk, [after for _, after in pairs], first)]
    return [_plain(before, after, owner, limit) for owner, (before, after) in enumerate(pairs, first)]


def _plain(before: Sequence[int], after: Sequence[int], owner: int, limit: int) -> Row:
    tokens = [*before, *after][-(limit + 1) :][:-1]
    targets = after[-len(tokens) :]
    where = range(len(tokens) - len(targets), len(tokens))
    return Row(tokens=tokens, where=where, targets=targets, owners=[owner] * len(targets))


def _tree(trunk: Sequence[int], choices: Sequence[Sequence[int]], first: int) -> Row:
    """Trunk, then every choice without its last token (nothing follows it)."""
    tokens, branches = list(trunk), [0] * len(trunk)
    where: list[int] = []
    for branch, choice in enumerate(choices, 1):
        where += [len(trunk) - 1, *range(len(tokens), len(tokens) + len(choice) - 1)]
        tokens += choice[:-1]
        branches += [branch] * (len(choice) - 1)
    targets = [token for choice in choices for token in choice]
    owners = [owner for owner, choice in enumerate(choices, first) for _ in choice]
    return Row(tokens=tokens, where=where, targets=targets, owners=owners, branches=branches)
