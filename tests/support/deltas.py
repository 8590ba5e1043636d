"""Tiny parents and specialists for the tests of delta tickets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minigpt.tickets.delta import in_dtype, parameters_of
from minigpt.tickets.delta_store import Ticket, make_ticket
from tests.support.tiny import tiny_model, tiny_tokenizer


def saved_parent(folder: Path, family: str = "llama", *, tied: bool = True) -> Path:
    """Save a tiny bf16 parent with its tokenizer."""
    tiny_model(family, tied=tied).to(torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def changed_copy(parent: dict[str, Any], share: float, *, seed: int = 1, scale: float = 0.05) -> dict[str, Any]:
    """Copy tensors with a random share of the weights of all but the vectors moved."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, tensor in parent.items():
        moved = torch.rand(tensor.shape, generator=generator) < share
        noise = scale * torch.randn(tensor.shape, generator=generator)
        result[name] = torch.where(moved & (tensor.ndim > 1), tensor.float() + noise, tensor.float()).to(tensor.dtype)
    return result


def tiny_ticket(
    base: Path, family: str = "llama", *, tied: bool = True, share: float = 0.05, seed: int = 1, values: Any = "exact"
) -> tuple[Any, dict[str, Any], Ticket]:
    """Return a tiny bf16 parent, the tensors of a specialist, and the ticket between them."""
    model = tiny_model(family, tied=tied).to(torch.bfloat16)
    parent = parameters_of(model)
    result = changed_copy(in_dtype(parent, torch.bfloat16), share, seed=seed)
    return model, result, make_ticket(parent, result, base=str(base), domains=("medical",), values=values)
