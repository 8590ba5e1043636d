"""Running a model for healing: in which precision, at which places, and how good it is on the dev text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from minigpt.errors import CorpusError
from minigpt.heal.data import Padded, TokenText, group, pad
from minigpt.heal.recipe import Precision

CPU_TOKENS = 2048


def autocast(device: torch.device, precision: Precision = "auto") -> AbstractContextManager[Any]:
    """bf16 arithmetic over fp32 weights where the hardware has it (softmax and norms stay in fp32); else fp32."""
    wanted = has_fast_bf16(device) if precision == "auto" else precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


def has_fast_bf16(device: torch.device) -> bool:
    """Whether matrix products are faster in bf16: on CUDA, and on processors with AVX512-BF16 or AMX.

    Elsewhere bf16 is emulated and slower than fp32.
    """
    if device.type != "cpu":
        return device.type == "cuda"
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(check() for name in checks if (check := getattr(torch.cpu, name, None)) is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """Windows that lie one behind the other in one row, none of which sees another.

    `positions` int64 [1, tokens] count from the start of each window; `starts` int32 [n + 1] are where windows start,
    and where the last one ends; none is longer than `longest` tokens.
    """

    positions: Tensor
    starts: Tensor
    longest: int

    @property
    def arguments(self) -> dict[str, Any]:
        """What a model is told, under the names that transformers has for flash attention."""
        ends = {"cu_seq_lens_q": self.starts, "cu_seq_lens_k": self.starts}
        return {"position_ids": self.positions, "max_length_q": self.longest, "max_length_k": self.longest, **ends}


def logits_at(model: Any, ids: Tensor, places: Tensor, packing: Packing | None = None) -> Tensor:
    """Logits [n, vocab] at `places` (int64 [n], into the flattened `ids` [rows, length]) only.

    The head is handed the chosen hidden states, so that neither logits of padding nor a copy of the others are made;
    what a family does to its logits afterwards (soft caps, scales) stays as it is. `packing` is for models inside
    :func:`minigpt.heal.attention.causal_attention`.
    """

    def choose(_head: Any, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (args[0].flatten(0, 1).index_select(0, places).unsqueeze(0),)

    told = {} if packing is None else packing.arguments
    handle = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        logits: Tensor = model(input_ids=ids, use_cache=False, **told).logits
    finally:
        handle.remove()
    return logits[0]


def states_before_head(model: Any, ids: Tensor, packing: Packing | None = None) -> Tensor:
    """What the model's head is given, [rows x length, hidden]; arguments as for :func:`logits_at`."""
    found: list[Tensor] = []

    def keep(_head: Any, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        found.append(args[0])
        return (args[0][:, :1],)

    told = {} if packing is None else packing.arguments
    handle = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        model(input_ids=ids, use_cache=False, **told)
    finally:
        handle.remove()
    return found[0].flatten(0, 1)


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
            logits = logits_at(model, batch.ids.to(device), batch.places.to(device))
        total += functional.cross_entropy(logits.float(), batch.labels.to(device), reduction="sum").double()
    return float(total) / math.log(2) / text.bytes


def _batches(text: TokenText, tokens: int, device: torch.device) -> Iterator[Padded]:
    size = tokens if device.type == "cuda" else min(tokens, CPU_TOKENS)
    return (pad(batch) for batch in group([window for window in text.windows if len(window) > 1], size))
