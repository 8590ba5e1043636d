"""Embedding pruning: cut a BPE vocabulary to a domain without changing how text of kept tokens is tokenized.

The value of a token is the number of times that the parent's merges build it on the domain's text, by itself or as a
part of a longer token. A part is built at least as often as the whole, so the most valuable tokens are closed under
merges, and they are exactly the set that keeps the text shortest for its size (see :func:`keep_tokens`).
"""

from minigpt.pruning.vocab.closure import closure, keep_tokens
from minigpt.pruning.vocab.model import trim_model
from minigpt.pruning.vocab.tokenizer import TrimmedTokenizer, encode_parent_ids, trim_tokenizer

__all__ = ["TrimmedTokenizer", "closure", "encode_parent_ids", "keep_tokens", "trim_model", "trim_tokenizer"]
