"""Comparison of a pruned model with the model it was cut from: does it compute anything else for the tokens it has?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from minigpt.streaming.weights import StoredWeights


def only_tokens_are_missing(source: Path, pruned: Path, tokens: Sequence[int] | None) -> bool:
    """Return True if a pruned model has all of its source's weights, but for the rows of removed tokens.

    Over the tokens that it has, such a model gives its source's probabilities, so that distillation from the source
    has nothing to teach it: the gradient is rounding noise, which optimizers that normalize it turn into full steps.

    Args:
        source: folder of the model that was pruned.
        pruned: folder of the pruned model.
        tokens: ids of the source that the pruned model's tokens had, in their order (None: all tokens are there).

    Raises:
        AssetError: a file is damaged.
    """
    before, after = StoredWeights(source), StoredWeights(pruned)
    if not after.shapes or before.shapes.keys() != after.shapes.keys():
        return False
    if any(not _fits(before.shapes[name], shape, tokens) for name, shape in after.shapes.items()):
        return False
    kept = None if tokens is None else torch.tensor(tokens)
    return all(_is_same(_tensor(before, name), _tensor(after, name), kept) for name in after.shapes)


def _fits(before: tuple[int, ...], after: tuple[int, ...], tokens: Sequence[int] | None) -> bool:
    """Say whether two shapes are alike, or differ in the rows of an embedding alone."""
    if before == after:
        return True
    return tokens is not None and before[1:] == after[1:] and len(tokens) <= after[0] < before[0]


def _is_same(before: Tensor, after: Tensor, kept: Tensor | None) -> bool:
    """Compare two tensors in the precision of the second, row by row where rows are missing."""
    if before.shape != after.shape and kept is not None:
        before, after = before[kept], after[: len(kept)]
    return torch.equal(before.to(after.dtype), after)


def _tensor(weights: StoredWeights, name: str) -> Tensor:
    """Map a tensor of a model folder into memory."""
    with safe_open(weights.files[name], framework="pt") as file:
        return torch.as_tensor(file.get_tensor(name))
