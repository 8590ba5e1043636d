"""Multiple-choice questions by log-likelihood: the model reads a question once, and the choices branch off from it."""

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

# Model types in which tokens mix only through attention, and which obey a mask and position ids of our own.
BRANCHING = frozenset(
    {"gemma", "gemma2", "gemma3_text", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3", "smollm3"}
)


def encode_pair(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokenize a prompt and its continuation as lm-eval does: the whole text, cut after the prompt's own tokens.

    Spaces at the end of the prompt move to the continuation, because tokenizers join a space to the word after it.
    An empty prompt becomes the prefix token.

    Returns:
        Token ids of the prompt and of the continuation.
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
    """Compute the natural log-likelihood of each choice after its question.

    With `share_prefix` the model reads a question once for all its choices, in one forward pass with a tree-shaped
    attention mask, wherever that is exact for the model. Otherwise each choice is a row of its own, and so it is for
    questions longer than the window, which are cut on the left. Both ways give the same numbers.

    Args:
        model: A Hugging Face causal model, or a `minigpt.runtimes.scoring.ScoringModel`.
        tokenizer: The model's tokenizer.
        questions: Questions to ask.
        template: Prompt with a `{question}` field.
        batch_tokens: Most tokens in one forward pass, padding included.
        window: Longest input in tokens.
        share_prefix: Read a question once for all its choices where the model allows it.
        title: Title of the progress bar.
        reporter: Receives the progress.

    Returns:
        One array for each question, [choices].

    Raises:
        CorpusError: A question has fewer than two choices, an empty choice, or an answer that is not one of them.
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


def pick_choices(question: Question, loglikelihoods: NDArray[np.float64]) -> tuple[int, int]:
    """Return the indices of the likeliest choice: raw, and per UTF-8 byte (lm-eval's `acc` and `acc_bytes`)."""
    lengths = np.array([len(choice.encode()) for choice in question.choices])
    return int(loglikelihoods.argmax()), int((loglikelihoods / lengths).argmax())


def _check(question: Question) -> None:
    """Refuse a question that cannot be scored."""
    name = f"Question {question.question[:60]!r}"
    if len(question.choices) < 2 or not all(choice.strip() for choice in question.choices):
        raise CorpusError(f"{name} needs at least two choices, none of them empty. Fix the question file.")
    if not 0 <= question.answer < len(question.choices):
        raise CorpusError(
            f"{name} has answer {question.answer}, but its {len(question.choices)} choices are numbered from 0. "
            "Fix the question file."
        )


def _branching_limit(model: Any, limit: int) -> int:
    """Find the longest prompt plus choice for which a tree-shaped mask is exact; 0 if it never is.

    Our mask replaces the mask of a sliding window, so no path through the tree may be longer than that window.
    """
    config = model.config
    if config.model_type not in BRANCHING or config._attn_implementation not in {"sdpa", "eager"}:
        return 0
    return min(limit, getattr(config, "sliding_window", None) or limit)


def _rows(pairs: Sequence[tuple[list[int], list[int]]], first: int, *, limit: int, branching: int) -> list[Row]:
    """Build the rows that score one question, whose choices are the owners `first`, `first + 1`, ..."""
    trunk = pairs[0][0]
    shared = all(before == trunk for before, _ in pairs)
    if shared and max(len(trunk) + len(after) - 1 for _, after in pairs) <= branching:
        return [_tree(trunk, [after for _, after in pairs], first)]
    return [_plain(before, after, owner, limit) for owner, (before, after) in enumerate(pairs, first)]


def _plain(before: Sequence[int], after: Sequence[int], owner: int, limit: int) -> Row:
    """Build a row of one prompt and one choice, cut on the left to `limit` tokens."""
    tokens = [*before, *after][-(limit + 1) :][:-1]
    targets = after[-len(tokens) :]
    where = range(len(tokens) - len(targets), len(tokens))
    return Row(tokens=tokens, where=where, targets=targets, owners=[owner] * len(targets))


def _tree(trunk: Sequence[int], choices: Sequence[Sequence[int]], first: int) -> Row:
    """Build a row of the trunk and every choice; the last token of a choice is left out, since nothing follows it."""
    tokens, branches = list(trunk), [0] * len(trunk)
    where: list[int] = []
    for branch, choice in enumerate(choices, 1):
        where += [len(trunk) - 1, *range(len(tokens), len(tokens) + len(choice) - 1)]
        tokens += choice[:-1]
        branches += [branch] * (len(choice) - 1)
    targets = [token for choice in choices for token in choice]
    owners = [owner for owner, choice in enumerate(choices, first) for _ in choice]
    return Row(tokens=tokens, where=where, targets=targets, owners=owners, branches=branches)
