"""Fused and compiled layers: norms, rotations and gates of a small model take most of a training step.

The fused kernels are those of liger-kernel (the `gpu` extra), applied through transformers' own integration. A long run
compiles its layers instead, which takes some seconds at the start and makes every step faster than the kernels do; see
docs/results/quality.md and LOG.md for what was measured.
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

# Shortest run, in tokens, for which compiling the layers pays off.
MIN_COMPILED_TOKENS = 16_000_000
# Kernels of the library that are left out: healing computes the gradient of its loss itself.
LIGER_OPTIONS = {"cross_entropy": False, "fused_linear_cross_entropy": False}
# Logger of the compiler, and the module of it that reads Triton kernels.
COMPILER_LOGGER, KERNEL_READER = "torch._dynamo", "triton_kernel_wrap"


@contextmanager
def fused_kernels(*models: Any) -> Iterator[None]:
    """Run the models on fused kernels inside the block, if all of them can be.

    The models keep the kernels after the block, so give copies, or models that stay on the GPU. What the library
    changes in the modules of transformers is put back.

    Args:
        *models: models of transformers; nothing happens unless :func:`has_fused_kernels` holds for every one.
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
        apply(model, LIGER_OPTIONS)
    try:
        yield
    finally:
        for module, names in before.items():
            vars(module).update(names)


def has_fused_kernels(model: Any) -> bool:
    """Say whether the model is on a GPU and the installed library has kernels for its family."""
    if next(model.parameters()).device.type != "cuda" or not torch.cuda.is_available():
        return False
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    except ImportError:
        return False
    return model.config.model_type in MODEL_TYPE_TO_APPLY_LIGER_FN


@contextmanager
def compiled_layers(*models: Any) -> Iterator[Callable[[Any], Any]]:
    """Run the decoder layers of the models compiled inside the block; afterwards they are plain again.

    Earlier compilations are dropped first. A CUDA graph that was captured from them must not be replayed any more, so
    end one run before the next begins.

    Yields:
        A function that compiles another function with the same options.
    """
    torch.compiler.reset()
    compiled: Callable[[Any], Any] = partial(torch.compile, dynamic=False)
    layers = [layer for model in models for layer in decoder_layers(model)]
    for layer in layers:
        layer.forward = compiled(layer.forward)
    logger = logging.getLogger(COMPILER_LOGGER)
    logger.addFilter(_is_worth_telling)
    try:
        yield compiled
    finally:
        logger.removeFilter(_is_worth_telling)
        for layer in layers:
            del layer.forward


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Say no to the traceback of a hundred lines for each use of a kernel that the compiler cannot read.

    Such a kernel is taken to change all its inputs, which is slower at worst, and right.
    """
    return record.module != KERNEL_READER
