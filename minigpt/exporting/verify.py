"""Logits and greedy text of an export beside those of its source, run in the three ways a model is run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigpt.errors import ExportError
from minigpt.runtimes import Check, Floats, Greedy, Runtime
from minigpt.transformer.packing import prefix_token

PROMPTS = (
    "The patient was admitted with a fever, and the doctors could not agree on its cause; after two days of tests",
    "In 1999 the court held that the contract was void, because",
    "Water is",
)
GREEDY_TOKENS = 64
TO_SOURCE = {"fp32": 1e-3}
"""Largest difference of a logit from the source's; precisions that are not listed are told, not judged."""
TO_ITSELF = {"fp32": 1e-3, "fp16": 0.25, "int8": 2.0, "int4": 2.0}
"""Largest difference between one export's own prefill, decode and padded batch.

Whatever rounding did to the weights, these three must agree but for the rounding of activations: up to 1.1 where a
runtime multiplies in eight bits (ONNX Runtime, the default parent), 0.9 in bfloat16 (NF4). A mask that is ignored, a
position that does not move or a token missing in the cache shift a logit of the default parent and its specialists by 4
to 38; a position off by one (0.6 to 3.7) is for the same graph in fp32 to show.
"""


def compare_logits(source: Runtime, exported: Runtime, *, precision: str) -> tuple[Check, ...]:
    """Prefill, step-by-step decode and a left-padded batch, each against the source and against the export's prefill.

    Raises:
        ExportError: the tokenizers disagree or the export gives logits that are not finite.
    """
    rows = [encode(source, exported, prompt) for prompt in PROMPTS]
    theirs = [alone(source, row) for row in rows]
    prefill = [alone(exported, row) for row in rows]
    steps = [stepwise(exported, row) for row in rows]
    ways = {"prefill": prefill, "decode": steps, "left-padded": padded(exported, rows)}
    judged, itself = TO_SOURCE.get(precision), TO_ITSELF[precision]
    checks = [
        Check(name=name, against="the source's", difference=distance(found, theirs), tolerance=judged)
        for name, found in ways.items()
    ]
    checks += [
        Check(name=name, against="its own prefill", difference=distance(ways[name], prefill), tolerance=itself)
        for name in ("decode", "left-padded")
    ]
    return tuple(checks)


def encode(source: Runtime, exported: Runtime, text: str) -> list[int]:
    """Prefix token and text as ids.

    Raises:
        ExportError: the two tokenizers differ.
    """
    first, second = (
        [prefix_token(each.tokenizer), *each.tokenizer.encode(text, add_special_tokens=False)]
        for each in (source, exported)
    )
    if first != second:
        raise ExportError("The export's tokenizer cuts text otherwise than its source's; nothing was kept.")
    return first


def alone(runtime: Runtime, row: Sequence[int]) -> Floats:
    """Logits [length, vocabulary] of one sequence, read at once without padding."""
    ids = np.array([row], dtype=np.int64)
    found: Floats = runtime.logits(ids, np.ones_like(ids))[0]
    return found


def stepwise(runtime: Runtime, row: Sequence[int]) -> Floats:
    """The same logits from a prefill of half the sequence and single steps; the first half is left NaN."""
    half = max(1, len(row) // 2)
    tail = [runtime.begin(row[:half]), *(runtime.step(token) for token in row[half:])]
    missing = np.full((half - 1, len(tail[0])), np.nan, dtype=np.float32)
    return np.concatenate([missing, np.stack(tail)])


def padded(runtime: Runtime, rows: Sequence[Sequence[int]]) -> list[Floats]:
    """The same logits from one batch, padded on the left."""
    length = max(map(len, rows))
    ids, mask = (np.zeros((len(rows), length), dtype=np.int64) for _ in range(2))
    for index, row in enumerate(rows):
        ids[index, length - len(row) :] = row
        mask[index, length - len(row) :] = 1
    logits = runtime.logits(ids, mask)
    return [logits[index, length - len(row) :] for index, row in enumerate(rows)]


def distance(first: Sequence[Floats], second: Sequence[Floats]) -> float:
    """Largest absolute difference, where the first is not NaN by intent.

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
    """Continue the first prompt greedily in both, and count the tokens before they part."""
    row = encode(source, exported, PROMPTS[0])
    ours, theirs = greedy(exported, row, tokens), greedy(source, row, tokens)
    parted = [index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
    return Greedy(tokens=tokens, agreeing=min([tokens, *parted]), required=required)


def greedy(runtime: Runtime, row: Sequence[int], tokens: int) -> list[int]:
    """The likeliest continuation token by token, end tokens taken like any other."""
    logits, found = runtime.begin(row), []
    while True:
        found.append(int(logits.argmax()))
        if len(found) == tokens:
            return found
        logits = runtime.step(found[-1])
