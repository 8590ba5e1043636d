"""Pruning of weights with calibration text: Wanda and SparseGPT, in one shot or after each round of a lottery ticket.

Both go through the layers in order. The inputs of a layer are measured after the layers before it were pruned, as in
the authors' programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from minigpt.progress import SILENT, Reporter
from minigpt.pruning.streams import call_layer, layer_arguments
from minigpt.tickets.masks import GONE, Masks, Pattern, best_of_groups, keep_best
from minigpt.transformer.arch import decoder_layers
from minigpt.transformer.batches import Batch
from minigpt.transformer.grams import gram_matrices, inverse_factor

# Columns whose mask SparseGPT chooses together (Frantar and Alistarh 2023, section 3.3).
BLOCK = 128
# Share of the mean diagonal that is added to the Hessian, as in SparseGPT's program.
DAMPING = 0.01


def wanda_scores(weight: Tensor, gram: Tensor) -> Tensor:
    """Score each weight by |W_ij| x ||X_j||_2 (Sun et al. 2023, arXiv 2306.11695, eq. 1).

    Args:
        weight: [rows, columns].
        gram: sum or mean of x x^T over the inputs; only its diagonal counts, and a factor on it changes no order.
    """
    return weight.abs().float() * gram.diagonal().clamp_min(0).sqrt()[None, :]


def wanda_mask(weight: Tensor, gram: Tensor, remaining: float, pattern: Pattern) -> Tensor:
    """Keep the highest Wanda scores of each row, because Wanda compares weights within one output (section 3)."""
    scores = wanda_scores(weight, gram)
    if pattern.group is not None:
        return best_of_groups(scores, *pattern.group)
    return best_of_groups(scores, round(remaining * scores.shape[1]), scores.shape[1])


def sparsegpt(
    weight: Tensor, gram: Tensor, remaining: float, pattern: Pattern, there: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Prune one matrix and let the weights that are left make up for it (Frantar and Alistarh 2023, algorithm 1).

    With H = X X^T + damping and U the upper Cholesky factor of its inverse, the weight w_ij costs w_ij^2 / U_jj^2. In
    each block of columns those that cost least are removed, and removing w_ij moves every later column k of the row by
    -w_ij U_jk / U_jj.

    Args:
        weight: [rows, columns]; it is not changed.
        gram: sum or mean of x x^T over the matrix's inputs.
        remaining: share of the weights to keep; an N:M pattern keeps N of M.
        pattern: where kept weights may lie.
        there: weights that earlier rounds left, of which alone some are kept (None: all). The others are zero, and what
            a removal would move them by is given on to the columns behind them.

    Returns:
        The new weights in fp32, zero where they are removed, and the mask.
    """
    factor, left = inverse_factor(gram, DAMPING).to(weight.device), weight.float().clone()
    mask = torch.ones_like(left, dtype=torch.bool)
    there = torch.ones_like(mask) if there is None else there
    width = 1 if pattern.group is None else pattern.group[1]
    step = max(1, BLOCK // width) * width  # no group lies in two blocks
    for start in range(0, left.shape[1], step):
        block = slice(start, min(start + step, left.shape[1]))
        inner, diagonal = factor[block, block], factor.diagonal()[block, None]
        # Columns lie next to each other in memory while they are removed one by one.
        columns, stay = left[:, block].T.contiguous(), there[:, block].T.contiguous()
        errors = torch.zeros_like(columns)
        if pattern.group is None:
            costs = (columns / diagonal).square()
            stay = keep_best({"block": costs}, remaining, Pattern("layer"), {"block": stay})["block"]
        for index in range(len(columns)):
            if pattern.group is not None and index % width == 0:
                group = slice(index, index + width)
                costs = (columns[group] / diagonal[group]).square().masked_fill(~stay[group], GONE)
                stay[group] &= best_of_groups(costs.T.contiguous(), pattern.group[0], width).T
            errors[index] = columns[index] * ~stay[index] / inner[index, index]
            columns[index:].addr_(inner[index, index:], errors[index], alpha=-1)
        left[:, block], mask[:, block] = (columns * stay).T, stay.T
        left[:, block.stop :] -= errors.T @ factor[block, block.stop :]
    return left, mask


PruneMatrix = Callable[[Tensor, Tensor, float, Pattern, Tensor | None], tuple[Tensor, Tensor]]


def _wanda(
    weight: Tensor, gram: Tensor, remaining: float, pattern: Pattern, there: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Prune one matrix by Wanda, which changes no weight that is left; those that are gone are zero and score zero."""
    mask = wanda_mask(weight, gram, remaining, pattern)
    mask = mask if there is None else mask & there
    return weight * mask, mask


# The methods that need calibration text, by name.
ONE_SHOT: Mapping[str, PruneMatrix] = {"wanda": _wanda, "sparsegpt": sparsegpt}


def _run_layer(layer: Any, states: list[Tensor], arguments: list[dict[str, Any]], number: int) -> Tensor:
    """Run a layer on the hidden states of a batch, by its number."""
    return call_layer(layer, states[number], arguments[number])


@torch.no_grad()
def prune_in_one_shot(
    model: Any,
    batches: Iterable[Batch],
    name: str,
    remaining: float,
    pattern: Pattern,
    *,
    there: Masks | None = None,
    reporter: Reporter = SILENT,
) -> Masks:
    """Prune the matrices of the decoder layers in place, layer by layer, and return the mask.

    Args:
        model: a causal language model.
        batches: packed calibration text; its hidden states wait on the model's device, and each layer reads them twice.
        name: a key of `ONE_SHOT`.
        remaining: share of the weights to keep.
        pattern: where kept weights may lie.
        there: weights that earlier rounds left; the others are zero (None: all are there).
        reporter: told about progress.
    """
    known, masks, text = dict(model.named_parameters()), dict[str, Tensor](), [part for part in batches if part.tokens]
    layers = list(decoder_layers(model))
    entered = [layer_arguments(model, layers, batch) for batch in text]
    states, arguments = [first for first, _ in entered], [of_layers for _, of_layers in entered]
    for index, layer in enumerate(reporter.track(layers, title=f"Pruning by {name}")):
        run = partial(_run_layer, layer, states, [of_layers[index] for of_layers in arguments])
        for matrix, gram in gram_matrices(model, text, layer=index, run=run).items():
            old = known[matrix].detach()
            earlier = None if there is None else there[matrix].to(old.device)
            weight, masks[matrix] = ONE_SHOT[name](old, gram, remaining, pattern, earlier)
            known[matrix].copy_(weight)
        states = [run(number) for number in range(len(text))]
    return masks
