"""A tokenizer as GGUF metadata: tokens, merges, token kinds and, by name, the pre-tokenizer.

llama.cpp's own converter knows a pre-tokenizer by the hash of its ids on a test string, which no pruned vocabulary
can match. Here the rule itself is compared with the rules that llama.cpp has names for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minigpt.assets.gguf_tokenizer import CONTROL, PRE_TOKENIZERS, USER_DEFINED
from minigpt.errors import ExportError

if TYPE_CHECKING:
    from gguf import GGUFWriter

NORMAL, UNUSED = 1, 5
_IMMATERIAL = ("trim_offsets",)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufVocabulary:
    """What the file says about tokens; `kinds` holds one of llama.cpp's token types for each of `tokens`.

    `special` maps bos, eos, unk and pad to ids. Rows of the embedding beyond the tokenizer are unused tokens.
    """

    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    special: dict[str, int]
    add_bos: bool
    add_eos: bool
    chat_template: str | Sequence[Any] | None


def vocabulary_of(tokenizer: Any, rows: int) -> GgufVocabulary:
    """Describe a fast byte-level BPE tokenizer for a model with `rows` embedding rows.

    Raises:
        ExportError: not a byte-level BPE, a pre-tokenizer or normalizer that llama.cpp has no name for, or more
            tokens than rows.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    document = json.loads(backend.to_str()) if backend is not None else {"model": {}}
    model = document["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise ExportError(
            "GGUF export needs a byte-level BPE tokenizer (as of SmolLM, Llama 3, Qwen); use --format onnx."
        )
    added = {token["content"]: token for token in document["added_tokens"]}
    ids = dict(model["vocab"]) | {name: token["id"] for name, token in added.items()}
    names = {number: name for name, number in ids.items()}
    if max(names) >= rows:
        raise ExportError(f"The tokenizer has token id {max(names)} but the model only {rows} embedding rows.")
    kinds = [_kind(names.get(number), added) for number in range(rows)]
    merges = model["merges"]
    opens, closes = _borders(tokenizer)
    return GgufVocabulary(
        pre=pre_tokenizer_name(document),
        tokens=tuple(names.get(number, f"[PAD{number}]") for number in range(rows)),
        kinds=tuple(kinds),
        merges=tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in merges),
        special=_special(tokenizer),
        add_bos=opens,
        add_eos=closes,
        chat_template=tokenizer.chat_template,
    )


def pre_tokenizer_name(document: dict[str, Any]) -> str:
    """llama.cpp's name of the pre-tokenizer in a parsed `tokenizer.json`: the first of equal rules in our table.

    Raises:
        ExportError: none of the rules in the table is this one.
    """
    from tokenizers import Tokenizer, models, normalizers

    ignores = bool(document["model"].get("ignore_merges"))
    for name, rule in PRE_TOKENIZERS.items():
        known = Tokenizer(models.BPE())
        known.pre_tokenizer = rule()
        if name == "qwen2":
            known.normalizer = normalizers.NFC()
        rules = json.loads(known.to_str())
        same = all(_plain(rules[part]) == _plain(document[part]) for part in ("pre_tokenizer", "normalizer"))
        if same and ignores == (name == "llama-bpe"):
            return name
    raise ExportError(
        "The tokenizer splits or normalizes text by a rule that GGUF export does not know "
        f"(known: {', '.join(PRE_TOKENIZERS)}). Use --format onnx instead."
    )


def _plain(node: Any) -> Any:
    """A rule without what changes no token."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if key not in _IMMATERIAL}
    return [_plain(item) for item in node] if isinstance(node, list) else node


def _kind(name: str | None, added: dict[str, Any]) -> int:
    if name is None:
        return UNUSED
    if name in added:
        return CONTROL if added[name]["special"] else USER_DEFINED
    return NORMAL


def _special(tokenizer: Any) -> dict[str, int]:
    found = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    return {name: int(number) for name, number in found.items() if number is not None}


def _borders(tokenizer: Any) -> tuple[bool, bool]:
    """Whether the tokenizer by itself opens a text with bos and closes it with eos."""
    ids = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    extra = len(ids) - len(bare)
    return extra > 0 and ids[0] == tokenizer.bos_token_id, extra > 0 and ids[-1] == tokenizer.eos_token_id


def add_vocabulary(writer: GGUFWriter, vocabulary: GgufVocabulary) -> None:
    """Write the `tokenizer.*` keys."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    for name, number in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
