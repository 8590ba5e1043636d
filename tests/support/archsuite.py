"""Models, batches and plans for tests that run on every family of the architecture table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minigpt.transformer.arch import legal_kv_groups, shape_of
from minigpt.transformer.batches import Batch
from minigpt.transformer.families import ARCHITECTURES
from minigpt.types import PrunePlan
from tests.support.tiny import tiny_model

STATES = tuple(name for name, spec in ARCHITECTURES.items() if spec.state is not None)
FAMILIES = tuple(name for name in ARCHITECTURES if name not in STATES)
EXPERTS = tuple(name for name, spec in ARCHITECTURES.items() if spec.experts is not None)
DENSE = tuple(name for name in FAMILIES if name not in EXPERTS)


def model_of(family: str, **options: Any) -> Any:
    """Return a random model whose biases and norms are not trivial, so that a forgotten one shows."""
    model = tiny_model(family, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    return model


def random_batch(*, rows: int = 2, length: int = 24, pad: int = 3, seed: int = 0, vocab: int = 512) -> Batch:
    """Return windows of two pieces of text with `pad` padding positions at the end."""
    ids = torch.randint(3, vocab, (rows, length), generator=torch.Generator().manual_seed(seed))
    cut, end = length // 3, length - pad
    segments = torch.zeros(rows, length, dtype=torch.long)
    segments[:, :cut], segments[:, cut:end] = 1, 2
    positions = torch.cat([torch.arange(cut), torch.arange(length - cut)]).expand(rows, -1).clone()
    return Batch(input_ids=ids * (segments != 0), position_ids=positions, segment_ids=segments)


def some_plan(model: Any, *, layers: tuple[int, ...] = (0, 2, 3), neurons: int = 32, groups: int = 1) -> PrunePlan:
    """Return a plan with a different choice of units in every layer; groups stay where the family fixes them.

    Where layers have experts, all but one of them are kept, and neurons stay.
    """
    shape = shape_of(model)
    neurons = shape.intermediate_size if shape.experts else neurons
    groups = groups if groups in legal_kv_groups(model) else shape.kv_groups
    generator = torch.Generator().manual_seed(5)

    def pick(size: int, count: int) -> tuple[int, ...]:
        return tuple(sorted(torch.randperm(size, generator=generator)[:count].tolist()))

    return PrunePlan(
        base_model="tiny",
        method="test",
        seed=0,
        layers=layers,
        ffn=tuple(pick(shape.intermediate_size, neurons) for _ in layers),
        kv_groups=tuple(pick(shape.kv_groups, groups) for _ in layers),
        experts=tuple(pick(shape.experts, shape.experts - 1) for _ in layers) if shape.experts else (),
    )


def keep_all(model: Any) -> PrunePlan:
    """Return the plan that removes nothing."""
    shape = shape_of(model)
    layers = tuple(range(shape.layers))
    return PrunePlan(
        base_model="tiny",
        method="test",
        seed=0,
        layers=layers,
        ffn=tuple(tuple(range(shape.intermediate_size)) for _ in layers),
        kv_groups=tuple(tuple(range(shape.kv_groups)) for _ in layers),
        experts=tuple(tuple(range(shape.experts)) for _ in layers) if shape.experts else (),
    )


def logits(model: Any, ids: Tensor) -> Tensor:
    """Return the logits of plain text, computed without a cache."""
    with torch.no_grad():
        output: Tensor = model(input_ids=ids, use_cache=False).logits
    return output
