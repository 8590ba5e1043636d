"""Fused kernels for norms, rotations and gates: a small model's training step is mostly such small steps.

The kernels are liger-kernel's (the `gpu` extra), put in through transformers' own integration. Measured on an H100
with the default parent: 73.6 ms a distillation step of 8,192 tokens without them, 47.8 ms with.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

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
