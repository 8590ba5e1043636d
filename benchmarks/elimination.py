"""Ranking of FFN neurons by backward elimination: the neuron goes whose loss the others can best make up for.

This is the structured form of the Optimal Brain Surgeon (Hassibi & Stork 1992; ZipLM, Kurtic et al. 2023; OSSCAR, Meng
et al. 2024). With X the inputs of the down projection on calibration text, W its weights and H = X^T X + lambda I,
removing neuron i and refitting the others costs |W_i|^2 / (H^-1)_ii. The cheapest neurons are removed, W and H^-1 are
updated, and so on. It is a contender of the default ranking here and not a method of minigpt: see
docs/results/sources.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from minigpt.pruning.leastsquares import default_ridge
from minigpt.pruning.slicing import linear
from minigpt.transformer.arch import arch_of, decoder_layers
from minigpt.transformer.batches import Batch, run_decoder


@torch.no_grad()
def elimination_scores(model: Any, batches: Sequence[Batch]) -> Tensor:
    """Score every neuron by the time at which it is eliminated, [layers, neurons]; the last ones score highest.

    Args:
        model: a dense model in float32.
        batches: calibration text.
    """
    spec, layers = arch_of(model), decoder_layers(model)
    grams, tokens = _grams(model, batches)
    rows = []
    for layer, gram in zip(layers, grams, strict=True):
        weight = linear(layer, spec.ffn_columns).weight.double()
        ridge = default_ridge(len(gram), tokens) * gram.diagonal().mean()
        hessian = gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        rows.append(elimination_order(weight, torch.linalg.inv(hessian)))
    return torch.stack(rows)


def elimination_order(weight: Tensor, inverse: Tensor, *, block: int = 1) -> Tensor:
    """Return the rank of each column of a projection, fp32 [columns] on the CPU; the first to go has rank 0.

    Args:
        weight: weights of the projection, [outputs, columns].
        inverse: inverse of the damped Gram matrix of its inputs, [columns, columns].
        block: columns that go at once; more are faster, and blind to columns that stand in for each other.
    """
    left = torch.arange(weight.shape[1], device=weight.device)
    gone: list[Tensor] = []
    while len(left) > block:
        cost = weight.square().sum(0) / inverse.diagonal()
        out = torch.topk(cost, block, largest=False).indices
        kept = torch.ones(len(left), dtype=torch.bool, device=left.device)
        kept[out] = False
        columns = inverse[:, out]
        solved = torch.linalg.solve(inverse[out][:, out], torch.cat([weight[:, out].T, columns.T], 1))
        weight = weight - (columns @ solved[:, : len(weight)]).T
        inverse = inverse - columns @ solved[:, len(weight) :]
        gone.append(left[out])
        left, weight, inverse = left[kept], weight[:, kept], inverse[kept][:, kept]
    ranks = torch.empty(len(left) + sum(map(len, gone)))
    ranks[torch.cat([*gone, left]).cpu()] = torch.arange(len(ranks), dtype=torch.float32)
    return ranks


def _grams(model: Any, batches: Sequence[Batch]) -> tuple[list[Tensor], int]:
    """Compute the Gram matrix of the inputs of every down projection over the text tokens, and count these."""
    spec, layers = arch_of(model), decoder_layers(model)
    grams: dict[int, Tensor] = {}
    rows = torch.empty(0, dtype=torch.long)
    tokens = 0

    def hook(index: int) -> Any:
        def add(_module: Any, inputs: tuple[Tensor, ...], _output: Any) -> None:
            text = inputs[0].flatten(0, -2).index_select(0, rows).double()
            grams[index] = text.T @ text + grams.get(index, 0)

        return add

    with ExitStack() as stack:
        for index, layer in enumerate(layers):
            module = linear(layer, spec.ffn_columns)
            stack.callback(module.register_forward_hook(hook(index)).remove)
        for batch in batches:
            rows = (batch.segment_ids != 0).flatten().nonzero().squeeze(1).to(model.device)
            tokens += len(rows)
            run_decoder(model, batch)
    return [grams[index] for index in range(len(layers))], tokens
