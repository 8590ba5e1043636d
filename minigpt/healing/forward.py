"""Run a model for healing: the precision of its arithmetic, and its loss on the dev text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional

from minigpt.errors import CorpusError
from minigpt.healing.data import Padded, TokenText, group, pad
from minigpt.healing.recipe import Precision
from minigpt.machine import has_fast_bf16
from minigpt.transformer.logits import logits_at

CPU_TOKENS = 2048


def autocast(device: torch.device, precision: Precision = "auto") -> AbstractContextManager[Any]:
    """bf16 arithmetic over fp32 weights where the hardware has it (softmax and norms stay in fp32); else fp32."""
    wanted = has_fast_bf16(device) if precision == "auto" else precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


@torch.no_grad()
def bits_per_byte(model: Any, text: TokenText, *, tokens: int = 16384, precision: Precision = "auto") -> float:
    """Bits per byte of `text` under `model`: sum of -log2 p over the windows' tokens, divided by the text's bytes.

    Leaves the model in evaluation mode.

    Args:
        model: a causal language model.
        text: tokenized for it.
        tokens: of one forward pass, padding included (at most 2,048 on a CPU).
        precision: see :func:`autocast`.

    Raises:
        CorpusError: there is nothing to predict.
    """
    if not text.tokens or not text.bytes:
        raise CorpusError("There is no dev text to decide by; give the domain more documents.")
    model.eval()
    device = next(model.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    for batch in _batches(text, tokens, device):
        with autocast(device, precision):
            logits = logits_at(model, batch.places.to(device), input_ids=batch.ids.to(device))
        total += functional.cross_entropy(logits.float(), batch.labels.to(device), reduction="sum").double()
    return float(total) / math.log(2) / text.bytes


def _batches(text: TokenText, tokens: int, device: torch.device) -> Iterator[Padded]:
    size = tokens if device.type == "cuda" else min(tokens, CPU_TOKENS)
    return (pad(batch) for batch in group([window for window in text.windows if len(window) > 1], size))
