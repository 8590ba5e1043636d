"""Pruned tokenizers: rebuild a tokenizer on fewer tokens, and map between its ids and the parent's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from minigpt.errors import PlanError
from minigpt.pruning.vocab.bpe import Bpe, parts_of, read_bpe
from minigpt.pruning.vocab.closure import close
from minigpt.types import Ints

# Stands in `old_ids` for a token that the parent lacks.
ADDED = -1
# Arguments of the parent's tokenizer that do not hold for a rebuilt one.
_NOT_CARRIED = {
    *("tokenizer_object", "tokenizer_file", "vocab", "merges", "vocab_file", "merges_file", "gguf_file"),
    *("added_tokens_decoder", "name_or_path", "special_tokens_map_file", "files_loaded", "backend"),
    *("add_bos_token", "add_eos_token", "post_processor", "slow_tokenizer_class", "local_files_only", "is_local"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimmedTokenizer:
    """A pruned tokenizer and the origin of its tokens.

    Attributes:
        tokenizer: a `PreTrainedTokenizerFast` with the parent's settings and chat template.
        old_ids: the parent's id of each new id; -1 marks a byte token that the parent lacked. The parent's tokens keep
            their order, and added bytes come last.
        byte_ids: the parent's ids of its byte tokens; rows of added bytes start as the mean of their rows.
        parent_size: number of tokens of the parent's tokenizer.
    """

    tokenizer: Any
    old_ids: Ints
    byte_ids: Ints
    parent_size: int

    @property
    def unchanged(self) -> bool:
        """True if the tokens are exactly the parent's, under the same ids."""
        return self.old_ids == tuple(range(self.parent_size))

    @property
    def new_ids(self) -> dict[int, int]:
        """Mapping from the parent's id of each kept token to its new id."""
        return {old: new for new, old in enumerate(self.old_ids) if old != ADDED}


def trim_tokenizer(tokenizer: Any, keep: Ints) -> TrimmedTokenizer:
    """Rebuild a tokenizer on the tokens `keep`.

    Normalizer, pre-tokenizer, decoder, chat template, special tokens, padding side and maximal length stay. Every
    merge whose two parts and product are kept stays, in order. Byte tokens that the parent lacks are added, so that
    every text that the pre-tokenizer leaves intact survives encoding and decoding, even where the parent drops a byte.

    Args:
        tokenizer: the parent's fast tokenizer, which stays as it is.
        keep: sorted parent ids, closed under merges (from `keep_tokens` or `closure`).

    Raises:
        PlanError: `keep` is not closed, has unknown ids or lacks a required token.
        UnsupportedModel: the tokenizer is no byte-level BPE nor BPE with byte fallback.
    """
    bpe = read_bpe(tokenizer)
    _check_closed(bpe, keep)
    kept = sorted(set(keep))
    names = [bpe.names[token] for token in kept] + list(bpe.missing)
    return TrimmedTokenizer(
        tokenizer=_wrap(tokenizer, _document(bpe, names)),
        old_ids=(*kept, *[ADDED] * len(bpe.missing)),
        byte_ids=bpe.byte_tokens,
        parent_size=len(bpe.names),
    )


def encode_parent_ids(trimmed: TrimmedTokenizer, child_ids: Iterable[int], *, missing: int = ADDED) -> list[int]:
    """Convert ids of the pruned tokenizer to the parent's, to give a teacher the same text in distillation.

    Args:
        trimmed: the pruned tokenizer.
        child_ids: ids of the pruned tokenizer; padding rows of the embedding are allowed.
        missing: the id for tokens that the parent lacks. The default -1 is not an id: mask these positions, or pass an
            id such as the parent's `eos_token_id` and ignore its prediction there.
    """
    old_ids = [missing if old == ADDED else old for old in trimmed.old_ids]
    return [old_ids[child] if child < len(old_ids) else missing for child in child_ids]


def _check_closed(bpe: Bpe, keep: Ints) -> None:
    """Refuse ids that are unknown, or that lack a token they are built from.

    Raises:
        PlanError: there is such an id.
    """
    if unknown := set(keep) - bpe.names.keys():
        raise PlanError(
            f"Token id {min(unknown)} of the plan is not in the vocabulary; the plan is for another parent."
        )
    if lacking := close({*keep, *bpe.required}, parts_of(bpe)) - set(keep):
        name = bpe.names[min(lacking)]
        raise PlanError(
            f"The plan keeps tokens but not the {len(lacking)} they need, e.g. {name!r}; "
            "pass the ids through minigpt.pruning.vocab.closure first."
        )


def _document(bpe: Bpe, names: list[str]) -> dict[str, Any]:
    """Write `tokenizer.json` for the tokens `names`; added tokens join the vocabulary, which alone fixes their ids."""
    ids = {name: number for number, name in enumerate(names)}
    merges = [list(pair) for pair in bpe.ranks if pair[0] in ids and pair[1] in ids and "".join(pair) in ids]
    added = [token | {"id": ids[token["content"]]} for token in bpe.document["added_tokens"]]
    padding = bpe.document["padding"]
    return bpe.document | {
        "model": bpe.document["model"] | {"vocab": ids, "merges": merges},
        "added_tokens": sorted(added, key=lambda token: int(token["id"])),
        "post_processor": _renumber(bpe.document["post_processor"], ids),
        "padding": padding and padding | {"pad_id": ids[padding["pad_token"]]},
    }


def _renumber(node: Any, ids: dict[str, int]) -> Any:
    """Copy a post-processor with the new ids of the tokens that it inserts."""
    if isinstance(node, list):
        return [_renumber(item, ids) for item in node]
    if not isinstance(node, dict):
        return node
    copy = {key: _renumber(value, ids) for key, value in node.items()}
    if "ids" in copy and "tokens" in copy:
        copy["ids"] = [ids[token] for token in copy["tokens"]]
    for key in ("sep", "cls"):
        if key in copy:
            copy[key] = [copy[key][0], ids[copy[key][0]]]
    return copy


def _wrap(parent: Any, document: dict[str, Any]) -> Any:
    """Wrap a document in a plain `PreTrainedTokenizerFast`: model-specific classes would rebuild it on loading."""
    import transformers
    from tokenizers import Tokenizer

    build: Any = transformers.PreTrainedTokenizerFast
    settings = {key: value for key, value in parent.init_kwargs.items() if key not in _NOT_CARRIED}
    settings |= parent.special_tokens_map
    for name in ("chat_template", "padding_side", "truncation_side", "model_max_length", "model_input_names"):
        settings |= {name: value} if (value := getattr(parent, name)) is not None else {}
    if extra := getattr(parent, "extra_special_tokens", None):
        settings["extra_special_tokens"] = extra
    return build(tokenizer_object=Tokenizer.from_str(json.dumps(document)), **settings)
