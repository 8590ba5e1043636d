"""Attention of training steps: without a mask on a GPU, by plain products on a processor where these are faster.

transformers builds no mask for an attention function that is not its own, so no training step on a GPU waits for the
device to inspect one. That attention serves right-padded rows and windows packed into one row.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.healing.recipe import Precision
from minigpt.machine import has_fast_bf16

# Name under which the attention function is registered with transformers.
CAUSAL = "minigpt_causal"
# Largest head size that the variable-length kernel of torch supports.
MAX_HEAD_SIZE = 256
# Lowest compute capability (Ampere) that the kernel runs on.
MIN_CAPABILITY = (8, 0)
# transformers' attention by torch's fused kernel, and the one by plain products of matrices.
FUSED, PLAIN = "sdpa", "eager"
# Longest rows, in tokens, whose gradients plain products compute faster than the fused kernel of a processor.
MAX_PLAIN_LENGTH = 512
# Most attention scores of a layer, since plain products keep them all for the backward pass.
MAX_PLAIN_SCORES = 2**22


@contextmanager
def causal_attention(*models: Any) -> Iterator[None]:
    """Let the models attend causally without a mask inside the block; right-padded text needs none.

    A model that is given the starts of windows (`cu_seq_lens_q` and `max_length_q`, the arguments of flash attention)
    attends within each window of its one row.

    Args:
        *models: causal language models of transformers; their attention implementation is put back after the block.
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
    """Attend within windows where their starts are given, else over whole rows; the signature is transformers'."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None:
        output: tuple[Tensor, Any] = sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **options)
        return output
    return packed_attention(query, key, value, cu_seq_lens_q, max_length_q, scaling), None


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scaling: float | None
) -> Tensor:
    """Attend causally within each of the windows that are packed into one row.

    Args:
        query: [1, heads, tokens, head size].
        key: [1, groups, tokens, head size].
        value: [1, groups, tokens, head size].
        starts: int32 [windows + 1], the start of each window and the end of the last; windows may be empty.
        longest: tokens of the longest window.
        scaling: factor of the attention scores (None: one over the root of the head size).

    Returns:
        [1, tokens, heads, head size].
    """
    from torch.nn.attention.varlen import varlen_attn

    queries, keys, values = (states[0].transpose(0, 1) for states in (query, key, value))
    options: dict[str, Any] = {"scale": scaling, "window_size": (-1, 0)}
    fewer_keys = key.shape[1] < query.shape[1]
    if fewer_keys and _needs_gqa_flag():
        options["enable_gqa"] = True
    output: Any = varlen_attn(queries, keys, values, starts, starts, longest, longest, **options)
    return torch.as_tensor(output).unsqueeze(0)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _needs_gqa_flag() -> bool:
    """Say whether this torch wants a flag for keys with fewer heads than queries; torch 2.11 has no such flag."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def has_packed_attention(head: int, device: torch.device) -> bool:
    """Say whether this torch and this CUDA device can attend within windows of one row.

    Args:
        head: size of one attention head.
        device: a CUDA device.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    has_arguments = {"scale", "window_size"} <= inspect.signature(varlen_attn).parameters.keys()
    has_kernel = torch.backends.cuda.is_flash_attention_available()
    is_supported = has_kernel and torch.cuda.get_device_capability(device) >= MIN_CAPABILITY
    return has_arguments and is_supported and head % 8 == 0 and head <= MAX_HEAD_SIZE


def plain_is_faster(device: torch.device, precision: Precision, *, rows: int, length: int, heads: int) -> bool:
    """Say whether plain products of matrices give a batch's gradients faster than torch's fused attention.

    They do in bf16 on a processor, whose fused kernel is slow in the backward pass, as long as the rows are short. A
    pass without gradients is faster with the fused kernel at every length.

    Args:
        device: where the model is trained.
        precision: arithmetic of the recipe.
        rows: rows of the batch.
        length: tokens of a row, padding included.
        heads: query heads of a layer.
    """
    in_bf16 = device.type == "cpu" and precision != "fp32" and has_fast_bf16(device)
    return in_bf16 and length <= MAX_PLAIN_LENGTH and rows * heads * length**2 <= MAX_PLAIN_SCORES


@contextmanager
def step_attention(model: Any, ids: Tensor, precision: Precision) -> Iterator[None]:
    """Let a model compute the gradients of one batch with the attention that is fastest, and put its own back.

    A model that attends by neither of transformers' two usual functions stays as it is.

    Args:
        model: a causal language model of transformers.
        ids: the batch, int64 [rows, length].
        precision: arithmetic of the recipe.
    """
    rows, length = ids.shape
    heads = getattr(model.config, "num_attention_heads", 0)
    faster = plain_is_faster(ids.device, precision, rows=rows, length=length, heads=heads)
    if not faster or model.config._attn_implementation != FUSED:
        yield
        return
    model.set_attn_implementation(PLAIN)
    try:
        yield
    finally:
        model.set_attn_implementation(FUSED)
