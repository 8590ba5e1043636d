"""Comparison of an export with its source: logits in the three ways a model is run, and greedy text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigpt.errors import ExportError
from minigpt.runtimes import Check, Floats, Greedy, Runtime
from minigpt.transformer.packing import prefix_token

# Texts of different length, so that a batch of them is padded.
PROMPTS = (
    "The patient was admitted with a fever, and the doctors could not agree on its cause; after two days of tests",
    "In 1999 the court held that the contract was void, because",
    "Water is",
)
# Length of the greedy continuation.
GREEDY_TOKENS = 64
# Largest difference of a logit from the source's. In precisions that are not listed it is reported, not judged.
TO_SOURCE = {"fp32": 1e-3}
# Largest difference of a logit between one export's own prefill, decode and padded batch. Whatever rounding did to the
# weights, these three must agree but for the rounding of activations. The limits leave room for runtimes that multiply
# in eight bits or bfloat16, and lie below the shift that an ignored mask, a position that does not move or a token
# missing in the cache causes. A position that is off by one shifts less; the same graph in fp32 shows that defect.
TO_ITSELF = {"fp32": 1e-3, "fp16": 0.25, "int8": 2.0, "int4": 2.0}


def compare_logits(source: Runtime, exported: Runtime, *, precision: str) -> tuple[Check, ...]:
    """Compare prefill, step-by-step decoding and a left-padded batch with the source and with the export's prefill.

    Args:
        source: the source in PyTorch.
        exported: the export in its runtime.
        precision: precision of the export, which decides what is allowed.

    Raises:
        ExportError: the tokenizers disagree or the export gives logits that are not finite.
    """
    rows = [encode_prompt(source, exported, prompt) for prompt in PROMPTS]
    expected = [prefill_logits(source, row) for row in rows]
    prefill = [prefill_logits(exported, row) for row in rows]
    decode = [decode_logits(exported, row) for row in rows]
    ways = {"prefill": prefill, "decode": decode, "left-padded": padded_logits(exported, rows)}
    to_source, to_itself = TO_SOURCE.get(precision), TO_ITSELF[precision]
    checks = [
        Check(name=name, against="the source's", difference=largest_difference(logits, expected), tolerance=to_source)
        for name, logits in ways.items()
    ]
    checks += [
        Check(
            name=name,
            against="its own prefill",
            difference=largest_difference(ways[name], prefill),
            tolerance=to_itself,
        )
        for name in ("decode", "left-padded")
    ]
    return tuple(checks)


def encode_prompt(source: Runtime, exported: Runtime, text: str) -> list[int]:
    """Encode the prefix token and a text with both tokenizers.

    Raises:
        ExportError: the two tokenizers differ.
    """
    first, second = (
        [prefix_token(runtime.tokenizer), *runtime.tokenizer.encode(text, add_special_tokens=False)]
        for runtime in (source, exported)
    )
    if first != second:
        raise ExportError("The export's tokenizer splits text differently from its source's; nothing was kept.")
    return first


def prefill_logits(runtime: Runtime, row: Sequence[int]) -> Floats:
    """Read one sequence at once, without padding: logits [length, vocabulary]."""
    ids = np.array([row], dtype=np.int64)
    logits: Floats = runtime.logits(ids, np.ones_like(ids))[0]
    return logits


def decode_logits(runtime: Runtime, row: Sequence[int]) -> Floats:
    """Read half of a sequence at once and the rest token by token: logits [length, vocabulary].

    Rows before the last token of the prefill are NaN, because a runtime gives no logits for them.
    """
    half = max(1, len(row) // 2)
    tail = [runtime.begin(row[:half]), *(runtime.step(token) for token in row[half:])]
    missing = np.full((half - 1, len(tail[0])), np.nan, dtype=np.float32)
    return np.concatenate([missing, np.stack(tail)])


def padded_logits(runtime: Runtime, rows: Sequence[Sequence[int]]) -> list[Floats]:
    """Read several sequences as one batch, padded on the left: logits [length, vocabulary] of each."""
    length = max(map(len, rows))
    ids, mask = (np.zeros((len(rows), length), dtype=np.int64) for _ in range(2))
    for index, row in enumerate(rows):
        ids[index, length - len(row) :] = row
        mask[index, length - len(row) :] = 1
    logits = runtime.logits(ids, mask)
    return [logits[index, length - len(row) :] for index, row in enumerate(rows)]


def largest_difference(first: Sequence[Floats], second: Sequence[Floats]) -> float:
    """Compute the largest absolute difference of a logit, leaving out rows that are all NaN in `first`.

    Raises:
        ExportError: a logit is not finite.
    """
    largest = 0.0
    for one, other in zip(first, second, strict=True):
        known = ~np.isnan(one).all(axis=-1)
        gap = np.abs(one[known] - other[known])
        if not known.any() or not np.isfinite(gap).all():
            raise ExportError("The export gives logits that are not finite; nothing was kept. Try a higher precision.")
        largest = max(largest, float(gap.max()))
    return largest


def compare_greedy(source: Runtime, exported: Runtime, *, required: bool, tokens: int = GREEDY_TOKENS) -> Greedy:
    """Continue the first prompt greedily in both, and count the tokens before the first difference.

    Args:
        source: the source in PyTorch.
        exported: the export in its runtime.
        required: whether the record must show full agreement.
        tokens: length of the continuation.
    """
    row = encode_prompt(source, exported, PROMPTS[0])
    actual, expected = greedy_tokens(exported, row, tokens), greedy_tokens(source, row, tokens)
    differing = [index for index, pair in enumerate(zip(actual, expected, strict=True)) if pair[0] != pair[1]]
    return Greedy(tokens=tokens, agreeing=min([tokens, *differing]), required=required)


def greedy_tokens(runtime: Runtime, row: Sequence[int], tokens: int) -> list[int]:
    """Generate the likeliest continuation token by token; end tokens do not stop it."""
    logits, continuation = runtime.begin(row), []
    while True:
        continuation.append(int(logits.argmax()))
        if len(continuation) == tokens:
            return continuation
        logits = runtime.step(continuation[-1])
