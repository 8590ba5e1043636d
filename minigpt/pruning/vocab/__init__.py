"""Embedding pruning: cut a BPE vocabulary to a domain without changing how the kept text is tokenized.

A token is worth the number of times the parent's merges build it on the domain's text, by itself or on the way to a
longer token. That number never grows from a part to the whole, so the best tokens by it are closed under merges and
are exactly the set that keeps the text shortest for its size (see :func:`keep_tokens`).
"""

from minigpt.pruning.vocab.closure import closure, keep_tokens
from minigpt.pruning.vocab.model import trim_model
from minigpt.pruning.vocab.tokenizer import TrimmedTokenizer, encode_parent_ids, trim_tokenizer

__all__ = ["TrimmedTokenizer", "closure", "encode_parent_ids", "keep_tokens", "trim_model", "trim_tokenizer"]
