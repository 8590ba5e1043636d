"""LLM-Pruner (Ma et al. 2023): first-order Taylor importance |gradient x weight|, summed over coupled groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import floor
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from minigpt.errors import CorpusError
from minigpt.methods.masking import mask_units
from minigpt.methods.material import Material, PaperForm
from minigpt.methods.scores import Scores
from minigpt.pruning.slicing import linear
from minigpt.transformer.arch import (
    arch_of,
    decoder_layers,
    head_dim,
    heads_per_group,
    parameters_of,
    refuse_experts,
    shape_of,
    unit_costs,
)
from minigpt.transformer.batches import Batch, attention_mask, split_rows
from minigpt.transformer.fused import separate_projections

# Tokens of one backward pass, which keeps every activation in memory.
PASS_TOKENS = 2048
# Layers that the paper form leaves whole at the two ends of the stack.
FIRST_DENSE, LAST_DENSE = 4, 2


def taylor(material: Material) -> Scores:
    """Score units by the sum of |g w| over all weights that they own (paper eq. 4, first order, by element).

    g is the gradient of the mean loss over the whole calibration text. A neuron owns its rows of gate and up and its
    column of down; a KV group owns its rows of q, k and v and its columns of o. A layer scores the sum of its units.
    """
    refuse_experts(material.model, "Method llm-pruner")
    products = gradient_products(material.model, material.batches)
    config, spec = material.model.config, arch_of(material.model)
    head, ratio, groups = head_dim(config), heads_per_group(config), shape_of(config).kv_groups
    ffn, attention = [], []
    for values in products:
        rows = torch.stack([values[path].sum(1) for path in spec.ffn_rows]).sum(0)
        ffn.append(rows + values[spec.ffn_columns].sum(0))
        owned = values[spec.query].sum(1).view(groups, ratio * head).sum(1)
        owned = owned + values[spec.output].sum(0).view(groups, ratio * head).sum(1)
        for path in spec.key_value:
            owned = owned + values[path].sum(1).view(groups, head).sum(1)
        attention.append(owned)
    neurons, owned_by_groups = torch.stack(ffn), torch.stack(attention)
    return Scores(
        ffn=neurons,
        kv_groups=owned_by_groups,
        layers=neurons.sum(1) + owned_by_groups.sum(1),
    )


def gradient_products(model: Any, batches: Iterable[Batch]) -> list[dict[str, Tensor]]:
    """Compute |g w| of every projection; g is accumulated in fp32 over all batches.

    Returns:
        One mapping a layer, from the projection's path to |g w| of its weight, fp32 on the CPU.

    Raises:
        CorpusError: the batches hold nothing to predict.
    """
    with separate_projections(model):
        return _products(model, batches)


def _products(model: Any, batches: Iterable[Batch]) -> list[dict[str, Tensor]]:
    """Compute |g w| of a model whose projections are all layers of their own."""
    spec = arch_of(model)
    paths = (*spec.ffn_rows, spec.ffn_columns, spec.query, *spec.key_value, spec.output)
    weights = {(i, path): linear(layer, path).weight for i, layer in enumerate(decoder_layers(model)) for path in paths}
    sums = {key: torch.zeros_like(weight, dtype=torch.float32) for key, weight in weights.items()}
    counted = 0
    with _gradients_for(model, weights.values()):
        for batch in (part for whole in batches for part in split_rows(whole, PASS_TOKENS)):
            loss, tokens = _loss(model, batch)
            if tokens:
                grads = torch.autograd.grad(loss, list(weights.values()))
                for total, grad in zip(sums.values(), grads, strict=True):
                    total += grad
                counted += tokens
    if not counted:
        raise CorpusError("The calibration batches hold no text to predict; give the domain more documents.")
    products: list[dict[str, Tensor]] = [{} for _ in decoder_layers(model)]
    for (index, path), total in sums.items():
        products[index][path] = (total / counted * weights[index, path].detach().float()).abs().cpu()
    return products


def _loss(model: Any, batch: Batch) -> tuple[Tensor, int]:
    """Sum the negative log-likelihoods of all tokens that follow another of their own document, and count them."""
    batch = batch.to(model.device)
    logits = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=attention_mask(model.config, batch.segment_ids, model.dtype),
        use_cache=False,
    ).logits[:, :-1]
    inside = (batch.segment_ids[:, 1:] == batch.segment_ids[:, :-1]) & (batch.segment_ids[:, 1:] != 0)
    losses = functional.cross_entropy(logits[inside].float(), batch.input_ids[:, 1:][inside], reduction="sum")
    return losses, int(inside.sum())


@contextmanager
def _gradients_for(model: Any, weights: Iterable[Tensor]) -> Iterator[None]:
    """Require gradients for these weights only, in evaluation mode; the block's end restores both."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = model.training
    model.eval()
    try:
        model.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)
        model.train(training)


def paper_form(material: Material, target: int) -> PaperForm:
    """Mask units by the paper's block-wise setting: the first four and the last two layers stay whole.

    Each of the other layers loses the same share of its KV groups, rounded down to whole ones, and neurons for the
    rest. A model of fewer than eight layers keeps only its first and its last layer whole.
    """
    model, scores, shape = material.model, taylor(material), shape_of(material.model)
    costs, before = unit_costs(model), parameters_of(model)
    first, last = (FIRST_DENSE, LAST_DENSE) if shape.layers >= 2 + FIRST_DENSE + LAST_DENSE else (1, 1)
    cut = range(min(first, shape.layers - 1), max(first + 1, shape.layers - last))
    per_layer = max(0, before - target) / len(cut)
    block = shape.kv_groups * costs.per_kv_group + shape.intermediate_size * costs.per_neuron
    fewer_groups = min(shape.kv_groups - 1, floor(min(1.0, per_layer / block) * shape.kv_groups))
    fewer_neurons = round((per_layer - fewer_groups * costs.per_kv_group) / costs.per_neuron)
    fewer_neurons = min(shape.intermediate_size, max(0, fewer_neurons))
    groups, neurons = (torch.ones(values.shape, dtype=torch.bool) for values in (scores.kv_groups, scores.ffn))
    for index in cut:
        groups[index, scores.kv_groups[index].argsort(stable=True)[:fewer_groups]] = False
        neurons[index, scores.ffn[index].argsort(stable=True)[:fewer_neurons]] = False
    mask_units(model, groups, neurons)
    gone = len(cut) * (fewer_groups * costs.per_kv_group + fewer_neurons * costs.per_neuron)
    return PaperForm(
        model=model,
        parameters=before - gone,
        kept={"ffn": tuple(neurons.sum(1).tolist()), "kv_groups": tuple(groups.sum(1).tolist())},
        note=f"LLM-Pruner's block-wise setting: layers {cut.start} to {cut.stop - 1} lose the same share, the others "
        "nothing. The parameters of masked units are not counted; nothing is smaller on disk.",
    )
