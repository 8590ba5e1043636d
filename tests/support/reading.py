"""What the projections of a model see, read piece by piece without padding or masks of ours."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from minigpt.transformer.batches import Batch


def pieces(batch: Batch) -> list[Tensor]:
    """The documents of a batch, [1, length] each."""
    documents = []
    for ids, segments in zip(batch.input_ids, batch.segment_ids, strict=True):
        for segment in sorted(set(segments.tolist()) - {0}):
            documents.append(ids[segments == segment][None])
    return documents


def read(model: Any, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and outputs [tokens, features] of every linear layer and activation, by module name."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def note(name: str) -> Any:
        return lambda _module, args, output: seen[name].append((args[0].flatten(0, -2), output.flatten(0, -2)))

    named = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) or n.endswith("act_fn")]
    handles = [module.register_forward_hook(note(name)) for name, module in named]
    with torch.no_grad():
        for ids in pieces(batch):
            model(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return {name: (torch.cat([a for a, _ in rows]), torch.cat([b for _, b in rows])) for name, rows in seen.items()}
