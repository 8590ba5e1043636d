"""Fast BPE tokenizers as data: merges, required tokens, and the parts that each token is built from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal

from minigpt.errors import UnsupportedModel
from minigpt.parsing import load_json
from minigpt.types import Ints

Kind = Literal["byte-level", "byte-fallback"]
# The character that stands for a space in SentencePiece vocabularies.
SPACE = "▁"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bpe:
    """The contents of a serialized BPE tokenizer.

    Attributes:
        kind: "byte-level" (GPT-2, Llama 3, Qwen, SmolLM) or "byte-fallback" (Llama 2, Mistral, Gemma).
        document: the parsed `tokenizer.json`; treat as read-only.
        ids: every token, added ones included, to its id.
        names: the inverse of `ids`.
        ranks: each merge (left, right) to its rank, 0 first.
        required: ids that no pruned vocabulary may lack: bytes, added tokens, whatever the post-processor inserts.
        byte_tokens: ids of the byte tokens that the tokenizer has.
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
        """True if a whole word that is in the vocabulary becomes one token without any merges (Llama 3)."""
        return bool(self.document["model"].get("ignore_merges"))


def read_bpe(tokenizer: Any) -> Bpe:
    """Read a `transformers` fast tokenizer.

    Raises:
        UnsupportedModel: the tokenizer is not fast, not BPE, or a BPE that cannot spell every byte.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnsupportedModel(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so its vocabulary cannot be pruned; "
            "save it as tokenizer.json first or keep the vocabulary (drop `embedding` from --kinds)."
        )
    document = load_json(backend.to_str())
    kind = _kind(document)
    model = document["model"]
    ids = dict(model["vocab"]) | {token["content"]: token["id"] for token in document["added_tokens"]}
    alphabet = _byte_alphabet(kind)
    inserted = [token for token in _inserted(document["post_processor"]) if token in ids]
    required = [*alphabet, *inserted, *tokenizer.all_special_tokens, model.get("unk_token")]
    required += [SPACE] if kind == "byte-fallback" else []
    required += [token["content"] for token in document["added_tokens"]]
    return Bpe(
        kind=kind,
        document=document,
        ids=ids,
        names={number: token for token, number in ids.items()},
        ranks={_pair(merge): rank for rank, merge in enumerate(model["merges"])},
        required=frozenset(ids[token] for token in required if token in ids),
        byte_tokens=tuple(sorted(ids[token] for token in alphabet if token in ids)),
        missing=tuple(token for token in alphabet if token not in ids),
    )


def parts_of(bpe: Bpe) -> Callable[[int], Ints]:
    """Return a memoized function from a token to the ids of the two tokens whose merge completes it, () for none.

    A vocabulary may hold several merges with the same product (all SentencePiece conversions do), but BPE always takes
    the same one of them: merges inside a token never depend on the text around it, since they would otherwise cross
    its border. So running BPE on the token alone finds the only path by which it can appear. A token that BPE does not
    rebuild from its own characters (special tokens, bytes, unreachable entries) has no parts.
    """
    ids, ranks = bpe.ids, bpe.ranks

    @cache
    def parts(token: int) -> Ints:
        last = last_merge(bpe.names[token], ranks)
        return () if last is None else (ids[last[0]], ids[last[1]])

    return parts


def last_merge(token: str, ranks: dict[tuple[str, str], int]) -> tuple[str, str] | None:
    """Run BPE on `token` alone and return the merge that completes it; None for one character or several pieces."""
    symbols = list(token)
    last = None
    never = len(ranks)
    while len(symbols) > 1:
        candidates = [ranks.get(pair, never) for pair in pairwise(symbols)]
        best = min(candidates)
        if best == never:
            return None
        at = candidates.index(best)
        last = (symbols[at], symbols[at + 1])
        symbols[at : at + 2] = ["".join(last)]
    return last


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """Read a merge, which older files write as one string."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _kind(document: dict[str, Any]) -> Kind:
    """Return the kind of BPE.

    Raises:
        UnsupportedModel: the tokenizer is not BPE, or cannot spell every byte.
    """
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
    """Yield the types of all components of a part of `tokenizer.json`."""
    if isinstance(node, dict):
        yield str(node.get("type", ""))
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _types(item)


def _byte_alphabet(kind: Kind) -> tuple[str, ...]:
    """Return the spellings of all 256 byte tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    if kind == "byte-level":
        return tuple(sorted(ByteLevel.alphabet()))
    return tuple(f"<0x{byte:02X}>" for byte in range(256))


def _inserted(node: Any) -> Iterator[str]:
    """Yield the tokens that a post-processor inserts: `tokens` of templates, `sep` and `cls` of the BERT style."""
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
