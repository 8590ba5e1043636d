"""Packed attention for tests on a CPU."""

from __future__ import annotations

import torch


def by_mask(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, _longest: int, scaling: float
) -> torch.Tensor:
    """Packed attention written out with a mask of blocks: what the kernel of an accelerator must compute."""
    tokens, repeats = query.shape[2], query.shape[1] // key.shape[1]
    window = torch.bucketize(torch.arange(tokens, device=starts.device), starts, right=True)
    mask = (window[:, None] == window[None, :]) & torch.ones(tokens, tokens, device=starts.device).tril().bool()
    theirs, told = (each.repeat_interleave(repeats, dim=1) for each in (key, value))
    found = torch.nn.functional.scaled_dot_product_attention(query, theirs, told, attn_mask=mask, scale=scaling)
    return found.transpose(1, 2)
