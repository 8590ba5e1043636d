"""Vocabulary of a model: cut embedding and head to the kept tokens, and renumber every token id of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.errors import PlanError, UnsupportedModel
from minigpt.pruning.vocab.tokenizer import ADDED, TrimmedTokenizer
from minigpt.transformer.families import ARCHITECTURES

# Fields of a config that hold token ids, though their names do not say so.
_ID_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids")


def trim_model(model: Any, trimmed: TrimmedTokenizer, *, multiple: int = 64) -> Any:
    """Cut a model to the rows of the kept tokens, in place; the logits of kept tokens do not change.

    Rows of byte tokens that the parent lacked start as the mean of its byte rows. If the number of tokens is not a
    multiple of `multiple`, padding rows are the mean of all kept rows: their logit is the mean of the others (biases
    included), which is never above the largest, so a padding row cannot win. `keep_tokens` returns sizes that need no
    padding. An unchanged tokenizer leaves every byte of the model unchanged.

    Args:
        model: a causal language model of `transformers`, on any device, in any dtype.
        trimmed: the pruned tokenizer of the same parent.
        multiple: the vocabulary size is padded to a multiple of this.

    Returns:
        The same model. Tied weights share storage as before. `vocab_size` and all token ids of `config` (nested text
        configs too) and `generation_config` are renumbered; ids of removed tokens are dropped.

    Raises:
        PlanError: the tokenizer has more tokens than the model has rows.
        UnsupportedModel: the model holds a second table of token rows.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    rows = embedding.weight.shape[0]
    if max(trimmed.old_ids) >= rows:
        raise PlanError(
            f"The tokenizer has an id {max(trimmed.old_ids)}, the model {rows} rows; use the parent's own tokenizer."
        )
    _refuse_other_tables(model, embedding, rows)
    if trimmed.unchanged:
        return model
    size = -(-len(trimmed.old_ids) // multiple) * multiple
    tied = head is not None and head.weight.data_ptr() == embedding.weight.data_ptr()
    _replace(embedding, "weight", trimmed, size)
    if tied:
        head.weight, head.out_features = embedding.weight, size
    elif head is not None:
        _replace(head, "weight", trimmed, size)
    if head is not None and getattr(head, "bias", None) is not None:
        _replace(head, "bias", trimmed, size)
    _renumber_model(model, trimmed.new_ids, rows, size)
    return model


def _refuse_other_tables(model: Any, embedding: nn.Module, rows: int) -> None:
    """Refuse a model with a second embedding table over tokens.

    Raises:
        UnsupportedModel: there is one.
    """
    spec = ARCHITECTURES.get(str(getattr(model.config, "model_type", "")))
    positions = 0 if spec is None or spec.positions is None else 1  # a table that may happen to have as many rows
    others = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and module is not embedding and module.num_embeddings == rows
    ]
    if len(others) > positions:
        raise UnsupportedModel(
            f"{others[0]} is a second table of token rows; keep the vocabulary of this architecture."
        )


def _replace(module: Any, name: str, trimmed: TrimmedTokenizer, size: int) -> None:
    """Give `module` the kept rows of its `weight` or `bias` and set its declared size."""
    old = getattr(module, name)
    new = nn.Parameter(_gather(old.detach(), trimmed, size), requires_grad=old.requires_grad)
    setattr(module, name, new)
    setattr(module, "num_embeddings" if isinstance(module, nn.Embedding) else "out_features", size)


def _gather(rows: Tensor, trimmed: TrimmedTokenizer, size: int) -> Tensor:
    """Gather rows [V, ...] of the parent into [size, ...]; added bytes get the mean byte row, padding the mean row."""
    old_ids = torch.tensor(trimmed.old_ids, device=rows.device)
    added = old_ids == ADDED
    kept = rows[old_ids.clamp(min=0)]
    kept[added] = rows[torch.tensor(trimmed.byte_ids, device=rows.device)].float().mean(dim=0).to(rows.dtype)
    padding = kept.float().mean(dim=0, keepdim=True).to(rows.dtype).expand(size - len(kept), *rows.shape[1:])
    return torch.cat([kept, padding])


def _renumber_model(model: Any, new_ids: Mapping[int, int], rows: int, size: int) -> None:
    """Update sizes and ids everywhere in the model, its config and its generation config."""
    _renumber_config(model.config, new_ids, size)
    if getattr(model, "generation_config", None) is not None:
        _renumber_config(model.generation_config, new_ids, size)
    for module in model.modules():
        if getattr(module, "vocab_size", None) == rows:
            module.vocab_size = size
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int):
            module.padding_idx = new_ids.get(padding)


def _renumber_config(config: Any, new_ids: Mapping[int, int], size: int) -> None:
    """Update the vocabulary size and all token ids of a config, nested configs included."""
    for name, value in list(vars(config).items()):
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            _renumber_config(value, new_ids, size)
        elif name == "vocab_size":
            config.vocab_size = size
        elif value is not None and (name.endswith(("_token_id", "_token_ids", "_token_index")) or name in _ID_LISTS):
            setattr(config, name, _renumber(value, new_ids))
        elif name == "forced_decoder_ids" and value:
            config.forced_decoder_ids = [[at, new_ids[token]] for at, token in value if token in new_ids] or None
        elif name == "sequence_bias" and value:
            config.sequence_bias = _renumber_bias(value, new_ids)


def _renumber_bias(value: Any, new_ids: Mapping[int, int]) -> Any:
    """Renumber `sequence_bias`: a mapping from id tuples, or pairs of an id list and a bias."""
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    kept = [(ids, bias) for ids, bias in pairs if all(token in new_ids for token in ids)]
    renumbered = [([new_ids[token] for token in ids], bias) for ids, bias in kept]
    if isinstance(value, Mapping):
        return {tuple(ids): bias for ids, bias in renumbered} or None
    return [[ids, bias] for ids, bias in renumbered] or None


def _renumber(value: Any, new_ids: Mapping[int, int]) -> Any:
    """Renumber one id, a list of ids or a list of sequences of ids; removed ids become None or are dropped.

    Dropping changes nothing: a model that lacks a token can neither produce it, stop at it nor need it suppressed. A
    sequence is dropped as a whole, because a part of it would mean something else.
    """
    if isinstance(value, int):
        return new_ids.get(value)
    if any(isinstance(item, (list, tuple)) for item in value):
        sequences = [_renumber(item, new_ids) for item in value]
        return [new for new, old in zip(sequences, value, strict=True) if new and len(new) == len(old)] or None
    return [new_ids[token] for token in value if token in new_ids] or None
