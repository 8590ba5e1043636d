"""Silence for transformers' own progress bars and advice, since progress goes through the reporter."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the bars and advice of transformers inside the block. Its errors still pass."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def quiet_gguf() -> Iterator[None]:
    """Silence transformers and its GGUF reader inside the block. The reader's bar ignores the library's switch."""
    with quiet_transformers(), ExitStack() as stack:
        with suppress(ImportError, AttributeError):
            module: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
            stack.callback(setattr, module, "tqdm", module.tqdm)
            module.tqdm = _no_bar
        yield


def _no_bar(items: Iterable[Any], **_options: object) -> Iterable[Any]:
    """Replace tqdm: return the items and draw nothing."""
    return items
