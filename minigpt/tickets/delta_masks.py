"""Masks of delta tickets: which of a specialist's changes are kept, and controls that choose by chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from minigpt.healing.data import TokenText, epochs
from minigpt.healing.forward import autocast
from minigpt.healing.losses import healing_gradient
from minigpt.healing.recipe import Recipe
from minigpt.tickets.delta_settings import Scope
from minigpt.transformer.logits import logits_at

# Batches of text in which squared gradients are averaged.
FISHER_BATCHES = 32


def scores_of(
    parent: Mapping[str, Tensor], tuned: Mapping[str, Tensor], fisher: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Score the change of each weight.

    Without `fisher` a change d counts |d|, the magnitude criterion of iterative magnitude pruning (Frankle & Carbin
    2019) on the fine-tuning delta. With it a change counts |d| sqrt(F), whose square is the term of the weight in the
    diagonal quadratic model of the loss, d^2 F / 2 (LeCun et al. 1990, eq. 3, with the empirical Fisher for the
    Hessian).

    Args:
        parent: the parent's tensors by name.
        tuned: tensors of the trained model.
        fisher: mean squared gradients by name, of :func:`squared_gradients`.
    """
    scores = {}
    for name, before in parent.items():
        scores[name] = (tuned[name].float() - before.to(tuned[name].device).float()).abs()
        if fisher is not None:
            scores[name] *= fisher[name].to(scores[name].device).sqrt()
    return scores


def top_mask(scores: Mapping[str, Tensor], fraction: float, scope: Scope = "global") -> dict[str, Tensor]:
    """Keep the share `fraction` of the weights with the highest scores, as boolean tensors by name.

    Args:
        scores: scores by name.
        fraction: share to keep, above 0 and at most 1.
        scope: let all weights compete, or those of each tensor among themselves.
    """
    if scope == "layer":
        return {name: _top(score.reshape(-1), fraction).view(score.shape) for name, score in scores.items()}
    flat = _top(torch.cat([score.reshape(-1) for score in scores.values()]), fraction)
    parts = torch.split(flat, [score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def random_mask(like: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Draw a mask with as many weights in each tensor as another mask has.

    Args:
        like: the other mask.
        seed: seed of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, mask in like.items():
        count = int(mask.sum())
        flat = torch.zeros(mask.numel(), dtype=torch.bool)
        flat[torch.rand(mask.numel(), generator=generator).topk(count).indices] = True
        drawn[name] = flat.view(mask.shape).to(mask.device)
    return drawn


def squared_gradients(
    model: Any, text: TokenText, recipe: Recipe, *, batches: int = FISHER_BATCHES, seed: int = 0
) -> dict[str, Tensor]:
    """Average the squared gradient of the cross-entropy over batches of text: the empirical Fisher, up to a factor.

    Args:
        model: a causal language model in fp32; its weights do not change.
        text: training text.
        recipe: gives size and precision of the batches.
        batches: number of batches.
        seed: sets the order of the text.
    """
    model.eval()
    named = dict(model.named_parameters())
    sums = {name: torch.zeros_like(parameter, dtype=torch.float32) for name, parameter in named.items()}
    device = next(iter(named.values())).device
    ordered = epochs(text.windows, recipe.tokens_per_step, seed)
    for _, batch in zip(range(batches), ordered, strict=False):
        model.zero_grad(set_to_none=True)
        with torch.enable_grad(), autocast(device, recipe.precision):
            logits = logits_at(model, batch.places.to(device), input_ids=batch.ids.to(device))
        logits.backward(healing_gradient(logits, batch.labels.to(device), None, 0.0, 1.0))  # type: ignore[no-untyped-call]
        for name, parameter in named.items():
            if parameter.grad is not None:
                sums[name].addcmul_(parameter.grad.float(), parameter.grad.float(), value=1 / batches)
    model.zero_grad(set_to_none=True)
    return sums


def _top(scores: Tensor, fraction: float) -> Tensor:
    """Mark the highest scores of a flat tensor: exactly the share `fraction`, and at least one."""
    count = max(1, round(fraction * scores.numel()))
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.topk(count, sorted=False).indices] = True
    return mask
