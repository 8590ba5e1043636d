"""Greedy decoding of many prompts in batches, padded on the left, with the answers that each prompt has alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from minigpt.progress import SILENT, Reporter
from minigpt.transformer.ends import end_tokens

# Tokens of a batch at least, prompts and answers: decoding reads the weights once for all rows of a batch.
BATCH_TOKENS = 8192
# Rows of a batch at most.
MOST_ROWS = 64


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
    ends = sorted(end_tokens(tokenizer, model.config, getattr(model, "generation_config", None)))
    batches = list(_batches(prompts, max_tokens, max(batch_tokens, BATCH_TOKENS)))
    with torch.inference_mode():
        for rows in reporter.track(batches, title=title, total=len(batches)):
            batch = [prompts[row] for row in rows]
            if hasattr(model, "runtime"):
                continued = [
                    _stepwise(model.runtime, tokenizer, prompt, max_tokens, ends, one_line) for prompt in batch
                ]
            else:
                continued = _generate(model, tokenizer, batch, max_tokens, ends, one_line)
            for row, text in zip(rows, continued, strict=True):
                texts[row] = text
    return texts


def _batches(prompts: Sequence[Sequence[int]], max_tokens: int, batch_tokens: int) -> Iterator[list[int]]:
    """Yield batches of rows of about equal length, the longest first."""
    order = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), row))
    start = 0
    while start < len(order):
        longest = len(prompts[order[start]]) + max_tokens
        rows = max(1, min(MOST_ROWS, batch_tokens // longest))
        yield order[start : start + rows]
        start += rows


def _generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_tokens: int, ends: list[int], one_line: bool
) -> list[str]:
    """Continue a batch with the library's own loop."""
    width = max(map(len, prompts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends or [0])[0]
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=ends or None,
        pad_token_id=pad,
        stopping_criteria=StoppingCriteriaList([LineEnd(tokenizer, width)] if one_line else []),
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
