"""Cut experts out of a layer, or keep a router from choosing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import UnsupportedModel
from minigpt.transformer.arch import arch_of, experts_of
from minigpt.transformer.experts import expert_spec, route
from minigpt.types import Ints


@torch.no_grad()
def slice_experts(model: Any, layer: nn.Module, kept: Ints) -> None:
    """Keep these experts of a layer: slices of their parameters and rows of the router; shared experts stay.

    Raises:
        UnsupportedModel: the experts are not stored as plain numbers, as in quantized models.
    """
    count, spec = experts_of(model.config), expert_spec(model)
    if len(kept) == count:
        return
    for path in (spec.router, spec.experts):
        module = layer.get_submodule(path)
        values = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, value in values:
            if not value.is_floating_point() or value.shape[0] != count:
                raise UnsupportedModel(
                    f"{path}.{name} does not hold {count} experts as plain numbers; load the parent unquantized and "
                    "merge adapters first."
                )
            rows = torch.tensor(kept, dtype=torch.long, device=value.device)
            cut = value.detach().index_select(0, rows).contiguous()
            if isinstance(value, nn.Parameter):
                setattr(module, name, nn.Parameter(cut, requires_grad=value.requires_grad))
            else:
                setattr(module, name, cut)
        write_count(module, spec.counts, len(kept))


def write_count(module: Any, names: tuple[str, ...], count: int) -> None:
    """Write a number of experts into the attributes of a module that repeat it."""
    for name in names:
        if hasattr(module, name):
            setattr(module, name, count)


def set_experts(config: Any, count: int) -> None:
    """Write a number of experts into a config."""
    spec = arch_of(config).experts
    if spec is not None and count != experts_of(config):
        setattr(config, spec.count, count)


def restricted(router: nn.Module, kept: Ints) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Make a forward of a router that never chooses removed experts; their logits are minus infinity.

    Args:
        router: the router of a layer.
        kept: experts that may be chosen.
    """
    dense = router.forward

    def forward(states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        router.forward = dense
        try:
            logits = router(states)[0]
            routing = route(router, states, kept)
        finally:
            router.forward = forward
        removed = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
        removed[list(kept)] = False
        return logits.masked_fill(removed, float("-inf")), routing.weights, routing.indices

    return forward
