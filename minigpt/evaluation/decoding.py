"""Greedy decoding of many prompts in batches, padded on the left, with the answers that each prompt has alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from minigpt.progress import SILENT, Reporter
from minigpt.transformer.arch import decodes_batches
from minigpt.transformer.ends import end_tokens

# Tokens of a batch at least, prompts and answers: decoding reads the weights once for all rows of a batch.
BATCH_TOKENS = 8192
# Rows of a batch at most.
MOST_ROWS = 64
# Tokens that prompts must have in common for them to be read once.
FEWEST_SHARED = 16
# Model types with one plain cache of keys and values in every layer.
COPYING = frozenset({"llama", "qwen2", "qwen3", "smollm3", "olmo2", "granite"})


class LineEnd(StoppingCriteria):
    """Stop of a row as soon as its answer holds a line end."""

    def __init__(self, tokenizer: Any, start: int) -> None:
        self.tokenizer = tokenizer
        self.start = start

    def __call__(self, input_ids: Tensor, _scores: Any, **_options: Any) -> Tensor:
        """Return which rows are done, [batch]."""
        texts = self.tokenizer.batch_decode(input_ids[:, self.start :], skip_special_tokens=True)
        return torch.tensor(["\n" in text for text in texts], device=input_ids.device)


def decode(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    one_line: bool = True,
    batch_tokens: int = BATCH_TOKENS,
    title: str = "Answering",
    reporter: Reporter = SILENT,
) -> list[str]:
    """Continue every prompt greedily.

    Args:
        model: A Hugging Face causal model, or a `minigpt.runtimes.scoring.ScoringModel`.
        tokenizer: The model's tokenizer.
        prompts: Token ids of the prompts, none of them empty.
        max_tokens: Longest continuation in tokens.
        one_line: End a continuation at its first line end.
        batch_tokens: Most tokens of a batch, where they are more than `BATCH_TOKENS`.
        title: Title of the progress bar.
        reporter: Receives the progress.

    Returns:
        Text after each prompt, without special tokens.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit:
        # As much of a long prompt as leaves room for the answer; its end holds the question.
        prompts = [list(prompt)[-max(1, limit - max_tokens) :] for prompt in prompts]
    texts = [""] * len(prompts)
    shared = _shared_start(model, prompts)
    ends = sorted(end_tokens(tokenizer, model.config, getattr(model, "generation_config", None)))
    most = MOST_ROWS if decodes_batches(model.config) else 1
    batches = list(_batches(prompts, max_tokens, max(batch_tokens, BATCH_TOKENS), most=most))
    with torch.inference_mode():
        for rows in reporter.track(batches, title=title, total=len(batches)):
            batch = [prompts[row] for row in rows]
            if hasattr(model, "runtime"):
                continued = [
                    _stepwise(model.runtime, tokenizer, prompt, max_tokens, ends, one_line) for prompt in batch
                ]
            else:
                continued = _generate(model, tokenizer, batch, max_tokens, ends, one_line, shared)
            for row, text in zip(rows, continued, strict=True):
                texts[row] = text
    return texts


def _batches(prompts: Sequence[Sequence[int]], max_tokens: int, batch_tokens: int, *, most: int) -> Iterator[list[int]]:
    """Yield batches of `most` rows at most and of about equal length, the longest first."""
    order = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), row))
    start = 0
    while start < len(order):
        longest = len(prompts[order[start]]) + max_tokens
        rows = max(1, min(most, batch_tokens // longest))
        yield order[start : start + rows]
        start += rows


@dataclass(frozen=True, slots=True)
class Start:
    """First tokens of all prompts, such as a task's examples, with their keys and values: they are read once."""

    tokens: list[int]
    cache: Any


def _shared_start(model: Any, prompts: Sequence[Sequence[int]]) -> Start:
    """Read the tokens that all prompts begin with, where they are many and the model's cache can be copied."""
    columns = zip(*prompts, strict=False)
    same = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns)) if len(prompts) > 1 else 0
    # Every prompt needs a token of its own.
    same = min(same, min(map(len, prompts), default=1) - 1)
    if same < FEWEST_SHARED or hasattr(model, "runtime") or model.config.model_type not in COPYING:
        return Start([], None)
    tokens = list(prompts[0][:same])
    with torch.inference_mode():
        output = model(torch.tensor([tokens], device=model.device), use_cache=True, logits_to_keep=1)
    return Start(tokens, output.past_key_values)


def _generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    ends: list[int],
    one_line: bool,
    start: Start,
) -> list[str]:
    """Continue a batch with the library's own loop; padding stands between a shared start and the rest."""
    first, width = len(start.tokens), max(map(len, prompts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends or [0])[0]
    rows = [(list(prompt), width - len(prompt)) for prompt in prompts]
    ids = torch.tensor([row[:first] + [pad] * gap + row[first:] for row, gap in rows], device=model.device)
    mask = torch.tensor([[1] * first + [0] * gap + [1] * (len(row) - first) for row, gap in rows], device=model.device)
    options: dict[str, Any] = {}
    if start.cache is not None:
        options["past_key_values"] = deepcopy(start.cache)
        options["past_key_values"].batch_repeat_interleave(len(rows))
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=ends or None,
        pad_token_id=pad,
        stopping_criteria=StoppingCriteriaList([LineEnd(tokenizer, width)] if one_line else []),
        **options,
    )
    return [str(text) for text in tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)]


def _stepwise(
    runtime: Any, tokenizer: Any, prompt: Sequence[int], max_tokens: int, ends: Sequence[int], one_line: bool
) -> str:
    """Continue one prompt with a runtime that has no loop of its own."""
    tokens: list[int] = []
    logits = runtime.begin(list(prompt))
    while len(tokens) < max_tokens:
        token = int(logits.argmax())
        if token in ends:
            break
        tokens.append(token)
        if (one_line and "\n" in tokenizer.decode(tokens, skip_special_tokens=True)) or len(tokens) == max_tokens:
            break
        logits = runtime.step(token)
    return str(tokenizer.decode(tokens, skip_special_tokens=True))
