"""Causal attention without a mask: over right-padded rows, or over windows that lie one behind the other in one row.

transformers builds no mask for an attention it did not define, so nothing waits for the device.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

CAUSAL = "minigpt_causal"
WIDEST_HEAD = 256
AMPERE = (8, 0)


@contextmanager
def causal_attention(*models: Any) -> Iterator[None]:
    """Inside the block the models attend causally without looking at a mask: right-padded text needs none.

    A model that is told where windows start (`cu_seq_lens_q` and `max_length_q`, as flash attention is) attends within
    each window of its one row.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(CAUSAL, _attend)
    before = [model.config._attn_implementation for model in models]
    for model in models:
        model.set_attn_implementation(CAUSAL)
    try:
        yield
    finally:
        for model, name in zip(models, before, strict=True):
            model.set_attn_implementation(name)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Any,
    *,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Any]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None:
        found: tuple[Tensor, Any] = sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **options)
        return found
    return packed_attention(query, key, value, cu_seq_lens_q, max_length_q, scaling), None


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scaling: float | None
) -> Tensor:
    """Causal attention within each of the windows that lie one behind the other.

    Args:
        query: [1, heads, tokens, head size].
        key: [1, groups, tokens, head size].
        value: like `key`.
        starts: int32 [windows + 1], where windows start, and the end of the last; windows may be empty.
        longest: tokens of the longest window.
        scaling: of the scores (None: by the root of the head size).

    Returns:
        [1, tokens, heads, head size].
    """
    from torch.nn.attention.varlen import varlen_attn

    ours, theirs, told = (each[0].transpose(0, 1) for each in (query, key, value))
    options: dict[str, Any] = {"scale": scaling, "window_size": (-1, 0)}
    fewer = key.shape[1] < query.shape[1]  # which torch 2.11 takes without being told
    if fewer and _wants_to_be_told():
        options["enable_gqa"] = True
    found: Any = varlen_attn(ours, theirs, told, starts, starts, longest, longest, **options)
    return torch.as_tensor(found).unsqueeze(0)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _wants_to_be_told() -> bool:
    """Whether this torch asks for a flag where keys have fewer heads."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def has_packed_attention(head: int, device: torch.device) -> bool:
    """Whether this torch and this CUDA device attend within windows of one row, for heads of this size."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    known = {"scale", "window_size"} <= inspect.signature(varlen_attn).parameters.keys()
    built = torch.backends.cuda.is_flash_attention_available()
    able = built and torch.cuda.get_device_capability(device) >= AMPERE
    return known and able and head % 8 == 0 and head <= WIDEST_HEAD
