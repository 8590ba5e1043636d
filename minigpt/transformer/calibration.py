"""Calibration text: what a model reads so that its activations can be measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from minigpt.transformer.batches import Batch, take_tokens, to_batches
from minigpt.transformer.packing import pack, tokenize
from minigpt.types import Document


def calibration_batches(
    tokenizer: Any, documents: Sequence[Document], *, window: int, tokens: int, batch_tokens: int
) -> list[Batch]:
    """Pack documents into whole windows, about `tokens` tokens of them.

    Args:
        tokenizer: of the model that reads.
        documents: calibration text, read from the start.
        window: length of a packed row in tokens.
        tokens: text tokens to stop after.
        batch_tokens: tokens of one batch.
    """
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    packed = pack(tokenize(tokenizer, documents, window=window), window, pad=int(pad))
    return list(take_tokens(to_batches(packed, batch_tokens=batch_tokens), tokens))


def token_counts(tokenizer: Any, documents: Sequence[Document]) -> Counter[int]:
    """Count how often each token occurs in the documents."""
    counts: Counter[int] = Counter()
    texts = [document.text for document in documents]
    for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
        counts.update(ids)
    return counts
