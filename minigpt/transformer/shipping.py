"""Models that travel from the first process to the others: the config as JSON, the weights as tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from minigpt.assets.quiet import quiet_transformers
from minigpt.distributed import current
from minigpt.distributed.group import Group
from minigpt.machine import release


def can_ship(model: Any) -> bool:
    """Say whether a model is what its config says: a plain causal model without adapters, masks or other layers."""
    config = getattr(model, "config", None)
    if config is None or getattr(config, "quantization_config", None) is not None:
        return False
    try:
        plain = _empty(_described(config), torch.device("meta"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return type(plain) is type(model) and _shapes(plain) == _shapes(model)


def ship(group: Group, model: Any = None) -> Any:
    """Return the first process's model in every process, on the process's own device.

    Args:
        group: the processes.
        model: the model in the first process, which is returned as it is; None elsewhere.
    """
    description = group.share(None if model is None else _described(model.config))
    dtypes = group.share(None if model is None else [str(tensor.dtype) for tensor in _tensors(model).values()])
    if model is None:
        model = _empty(description, group.device)
    for tensor, dtype in zip(_tensors(model).values(), dtypes, strict=True):
        if not group.leads:
            tensor.data = tensor.data.to(getattr(torch, dtype.removeprefix("torch.")))
        group.spread(tensor.data if tensor.data.is_contiguous() else _contiguous(tensor))
    return model.eval() if not group.leads else model


@contextmanager
def held(model: Any) -> Iterator[None]:
    """Let every process hold a copy of the model inside the block, where there are others and it can travel."""
    group = current()
    if group is None or group.shipped is not None or not can_ship(model):
        yield
        return
    group.announce("hold")
    group.shipped = ship(group, model)
    try:
        yield
    finally:
        group.shipped = None
        group.announce("drop")


def help_to_hold(group: Group) -> None:
    """Take a copy of the first process's model."""
    group.shipped = ship(group)


def help_to_drop(group: Group) -> None:
    """Forget the copy."""
    group.shipped = None
    release()


def _described(config: Any) -> dict[str, Any]:
    """Return a config as JSON, with the implementation of attention."""
    plain: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {"config": plain, "attention": config._attn_implementation, "type": config.model_type}


def _empty(description: dict[str, Any], device: torch.device) -> Any:
    """Make a model of a described config, whose weights mean nothing yet."""
    from transformers import AutoConfig, AutoModelForCausalLM

    plain = {name: value for name, value in description["config"].items() if name != "model_type"}
    config = AutoConfig.for_model(description["type"], **plain)
    make: Any = AutoModelForCausalLM.from_config
    with quiet_transformers(), torch.device(device):
        return make(config, attn_implementation=description["attention"])


def _tensors(model: Any) -> dict[str, Tensor]:
    """Return parameters and saved buffers by name; tied ones once."""
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return {**dict(model.named_parameters()), **buffers}


def _shapes(model: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Return names and shapes of what travels."""
    return [(name, tuple(tensor.shape)) for name, tensor in _tensors(model).items()]


def _contiguous(tensor: Tensor) -> Tensor:
    """Make a tensor's memory contiguous, and return it."""
    tensor.data = tensor.data.contiguous()
    return tensor.data
