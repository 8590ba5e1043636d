"""A fast BPE tokenizer as data: its merges, the tokens it cannot do without, and how each token is built."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal

from minigpt.errors import UnsupportedModel
from minigpt.types import Ints

Kind = Literal["byte-level", "byte-fallback"]
SPACE = "▁"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bpe:
    """What the serialized tokenizer says.

    Attributes:
        kind: "byte-level" (GPT-2, Llama 3, Qwen, SmolLM) or "byte-fallback" (Llama 2, Mistral, Gemma).
        document: the parsed `tokenizer.json`; treat as read-only.
        ids: every token, added ones included, to its id.
        names: the inverse of `ids`.
        ranks: each merge (left, right) to its rank, 0 first.
        required: ids that no pruned vocabulary may lack: bytes, added tokens, whatever the post-processor inserts.
        byte_tokens: the ids of the byte tokens there are.
        missing: byte tokens that the tokenizer lacks, in byte order of their spelling; at most 256.
    """

    kind: Kind
    document: dict[str, Any]
    ids: dict[str, int]
    names: dict[int, str]
    ranks: dict[tuple[str, str], int]
    required: frozenset[int]
    byte_tokens: Ints
    missing: tuple[str, ...]

    @property
    def ignores_merges(self) -> bool:
        """Whether a whole word in the vocabulary is taken without looking at the merges (Llama 3)."""
        return bool(self.document["model"].get("ignore_merges"))


def read_bpe(tokenizer: Any) -> Bpe:
    """Read a `transformers` fast tokenizer.

    Raises:
        UnsupportedModel: it is not a fast tokenizer, not BPE, or a BPE that cannot spell every byte.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnsupportedModel(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so its vocabulary cannot be pruned; "
            "save it as tokenizer.json first or keep the vocabulary (drop `embedding` from --kinds)."
        )
    document = json.loads(backend.to_str())
    kind = _kind(document)
    model = document["model"]
    ids = dict(model["vocab"]) | {token["content"]: token["id"] for token in document["added_tokens"]}
    alphabet = _byte_alphabet(kind)
    inserted = [token for token in _inserted(document["post_processor"]) if token in ids]
    wanted = [*alphabet, *inserted, *tokenizer.all_special_tokens, model.get("unk_token")]
    wanted += [SPACE] if kind == "byte-fallback" else []
    wanted += [token["content"] for token in document["added_tokens"]]
    return Bpe(
        kind=kind,
        document=document,
        ids=ids,
        names={number: token for token, number in ids.items()},
        ranks={_pair(merge): rank for rank, merge in enumerate(model["merges"])},
        required=frozenset(ids[token] for token in wanted if token in ids),
        byte_tokens=tuple(sorted(ids[token] for token in alphabet if token in ids)),
        missing=tuple(token for token in alphabet if token not in ids),
    )


def parts_of(bpe: Bpe) -> Callable[[int], Ints]:
    """Return a memoized function: the ids of the two tokens whose merge completes a token, () for none.

    A vocabulary may offer several merges with the same product (all SentencePiece conversions do), but BPE takes one
    of them, whatever stands around the token: merges inside its borders never depend on text outside, or they would
    have crossed the border. So running BPE on the token alone finds the one path by which it can ever appear. A token
    that BPE does not rebuild from its own characters (specials, bytes, dead entries) has no parts.
    """
    ids, ranks = bpe.ids, bpe.ranks

    @cache
    def parts(token: int) -> Ints:
        last = last_merge(bpe.names[token], ranks)
        return () if last is None else (ids[last[0]], ids[last[1]])

    return parts


def last_merge(token: str, ranks: dict[tuple[str, str], int]) -> tuple[str, str] | None:
    """Run BPE on `token` alone: the merge that completes it, or None if it stays in pieces or is one character."""
    symbols = list(token)
    last = None
    never = len(ranks)
    while len(symbols) > 1:
        found = [ranks.get(pair, never) for pair in pairwise(symbols)]
        best = min(found)
        if best == never:
            return None
        at = found.index(best)
        last = (symbols[at], symbols[at + 1])
        symbols[at : at + 2] = ["".join(last)]
    return last


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _kind(document: dict[str, Any]) -> Kind:
    model = document["model"]
    advice = "keep the vocabulary (drop `embedding` from --kinds)"
    if model.get("type") != "BPE":
        raise UnsupportedModel(f"Vocabulary pruning knows BPE tokenizers, not {model.get('type')}; {advice}.")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise UnsupportedModel(f"Vocabulary pruning knows no BPE with word prefixes or suffixes; {advice}.")
    if "ByteLevel" in {*_types(document["pre_tokenizer"]), *_types(document["normalizer"])}:
        return "byte-level"
    if model.get("byte_fallback") and "ByteFallback" in _types(document["decoder"]):
        return "byte-fallback"
    raise UnsupportedModel(
        f"This BPE tokenizer is neither byte-level nor falls back to bytes, so text would be lost; {advice}."
    )


def _types(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield str(node.get("type", ""))
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _types(item)


def _byte_alphabet(kind: Kind) -> tuple[str, ...]:
    from tokenizers.pre_tokenizers import ByteLevel

    if kind == "byte-level":
        return tuple(sorted(ByteLevel.alphabet()))
    return tuple(f"<0x{byte:02X}>" for byte in range(256))


def _inserted(node: Any) -> Iterator[str]:
    """Tokens a post-processor inserts: templates list them in `tokens`, the BERT style in `sep` and `cls`."""
    if isinstance(node, dict):
        if "ids" in node:
            yield from node.get("tokens", ())
        for key in ("sep", "cls"):
            if key in node:
                yield node[key][0]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _inserted(item)
