"""Fused kernels for norms, rotations and gates: a small model's training step is mostly such small steps.

The kernels are liger-kernel's (the `gpu` extra), put in through transformers' own integration. Measured on an H100
with the default parent: 73.6 ms a distillation step of 8,192 tokens without them, 47.8 ms with. A long run compiles its
layers instead: 53.0 ms a step of 16,384 tokens on an H200 (half of the default parent) where the kernels take 62.0 ms,
after 5 to 7 s of compiling.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from minigpt.transformer.arch import decoder_layers

LONG = 16_000_000
"""Tokens of a run that is long enough to compile for."""
KERNELS = {"cross_entropy": False, "fused_linear_cross_entropy": False}


@contextmanager
def fused_kernels(*models: Any) -> Iterator[None]:
    """Inside the block these models run on fused kernels, if they are installed and know the family.

    The models themselves keep theirs (give copies, or models that stay on the accelerator); what the library changes
    in transformers' modules is put back.
    """
    if not all(has_fused_kernels(model) for model in models):
        yield
        return
    from transformers.integrations import liger

    logging.getLogger("liger_kernel").setLevel(logging.ERROR)
    apply: Any = liger.apply_liger_kernel
    modules = {sys.modules[type(model).__module__] for model in models}
    before = {module: dict(vars(module)) for module in modules}
    for model in models:
        apply(model, KERNELS)
    try:
        yield
    finally:
        for module, names in before.items():
            vars(module).update(names)


def has_fused_kernels(model: Any) -> bool:
    """Whether the library is there, has kernels for the family, and the model is where they run."""
    if next(model.parameters()).device.type != "cuda" or not torch.cuda.is_available():
        return False
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    except ImportError:
        return False
    return model.config.model_type in MODEL_TYPE_TO_APPLY_LIGER_FN


@contextmanager
def compiled_layers(*models: Any) -> Iterator[Callable[[Any], Any]]:
    """Inside the block the decoder layers of these models run compiled; gives what compiles other functions so.

    What was compiled before is forgotten first, so no graph captured from that may be replayed any more: a run ends
    before the next one begins.
    """
    torch.compiler.reset()
    compiled: Callable[[Any], Any] = partial(torch.compile, dynamic=False)
    layers = [layer for model in models for layer in decoder_layers(model)]
    for layer in layers:
        layer.forward = compiled(layer.forward)
    try:
        yield compiled
    finally:
        for layer in layers:
            del layer.forward
