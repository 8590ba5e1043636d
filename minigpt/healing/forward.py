"""Forward passes for training: their arithmetic precision, and the bits per byte of a model on dev text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from minigpt.distributed.group import Group
from minigpt.errors import CorpusError
from minigpt.healing.data import PaddedBatch, TokenText, batch_by_length, pad
from minigpt.healing.recipe import Precision
from minigpt.machine import has_fast_bf16
from minigpt.transformer.logits import logits_at
from minigpt.transformer.portions import Portions

# Most tokens of one forward pass on any device but a GPU.
MAX_CPU_TOKENS = 2048
# Most logits of one pass over dev text. They are held twice in fp32, so that a large vocabulary takes shorter passes.
MAX_LOGITS = 2**30


def autocast(device: torch.device, precision: Precision = "auto") -> AbstractContextManager[Any]:
    """Return a context for bf16 arithmetic over fp32 weights, or one that changes nothing for fp32 arithmetic.

    Softmax and norms stay in fp32 in both cases.

    Args:
        device: where the model runs.
        precision: "auto" takes bf16 where the hardware is faster at it.
    """
    use_bf16 = has_fast_bf16(device) if precision == "auto" else precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16) if use_bf16 else nullcontext()


@torch.no_grad()
def bits_per_byte(
    model: Any,
    text: TokenText,
    *,
    tokens: int = 16384,
    precision: Precision = "auto",
    group: Group | None = None,
    portions: Portions | None = None,
) -> float:
    """Return the bits per byte of `text`: the sum of -log2 p over the windows' tokens, divided by the text's bytes.

    Bits per byte compare models with different vocabularies, which bits per token do not. The model is left in
    evaluation mode.

    Args:
        model: a causal language model.
        text: text that is tokenized for the model.
        tokens: tokens of one forward pass, padding included; at most `MAX_CPU_TOKENS` without a GPU, and as many as
            make `MAX_LOGITS` logits.
        precision: see :func:`autocast`.
        group: processes that share the text; each has the same model, and gets the number that one alone would get.
        portions: what earlier evaluations have learned about the memory (None: nothing); one process alone uses it.

    Raises:
        CorpusError: the text holds no token to predict.
    """
    if not text.tokens or not text.bytes:
        raise CorpusError("There is no dev text to decide by; give the domain more documents.")
    model.eval()
    device = next(model.parameters()).device
    fitting = max(1, MAX_LOGITS // int(model.config.get_text_config().vocab_size))
    batches = list(dev_batches(text, min(tokens, fitting), device))
    rank, world = (0, 1) if group is None else (group.rank, group.world)
    nats = torch.zeros(len(batches), dtype=torch.float64, device=device)
    portions = portions or Portions("Dev text")

    def losses_of(batch: PaddedBatch, parts: Sequence[slice]) -> list[Tensor]:
        losses = []
        for rows in map(batch.rows, parts):
            with autocast(device, precision):
                logits = logits_at(model, rows.places.to(device), input_ids=rows.ids.to(device))
            losses.append(functional.cross_entropy(logits.float(), rows.labels.to(device), reduction="sum").double())
        return losses

    for start in range(0, len(batches), world):
        # Processes that divide a model compute in step, so one without a batch of its own repeats the last one.
        batch = batches[min(start + rank, len(batches) - 1)]
        work = partial(losses_of, batch)
        losses = portions.run(len(batch.ids), work) if world == 1 else work([slice(None)])
        if start + rank < len(batches):
            nats[start + rank] = torch.stack(losses).sum()
    # Each place is filled by one process and zero in all others, so the sum is exact.
    by_batch: list[float] = (nats if group is None else group.add_up(nats)).tolist()
    return sum(by_batch) / math.log(2) / text.bytes


def dev_batches(text: TokenText, tokens: int, device: torch.device) -> Iterator[PaddedBatch]:
    """Yield the windows with a token to predict as padded batches."""
    size = tokens if device.type == "cuda" else min(tokens, MAX_CPU_TOKENS)
    return (pad(batch) for batch in batch_by_length([window for window in text.windows if len(window) > 1], size))
