"""Tokenizers as GGUF metadata: tokens, merges, token kinds and the name of the pre-tokenizer.

llama.cpp's own converter recognizes a pre-tokenizer by the hash of its ids on a test string, which no pruned vocabulary
can match. This module compares the rule itself with the rules that llama.cpp has names for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minigpt.assets.gguf_tokenizer import CONTROL, PRE_TOKENIZERS, USER_DEFINED
from minigpt.errors import ExportError
from minigpt.exporting.common import Inexpressible
from minigpt.parsing import load_json
from minigpt.transformer.ends import declared_ends

if TYPE_CHECKING:
    from gguf import GGUFWriter

# llama.cpp's token type of an ordinary token.
NORMAL = 1
# llama.cpp's token type of an embedding row that has no token.
UNUSED = 5
# Settings of a rule that change no token.
_IMMATERIAL = ("trim_offsets",)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufVocabulary:
    """Everything that a GGUF file says about tokens.

    Attributes:
        pre: llama.cpp's name of the pre-tokenizer.
        tokens: one for each row of the embedding; rows beyond the tokenizer are unused tokens.
        kinds: llama.cpp's token type of each of `tokens`.
        merges: BPE merges in order, the two parts separated by a space.
        special: ids of bos, eos, unk and pad, and of further end tokens as eot and eom, as far as there are any.
        add_bos: whether the tokenizer opens a text with bos.
        add_eos: whether the tokenizer closes a text with eos.
        chat_template: the tokenizer's chat template.
    """

    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    special: dict[str, int]
    add_bos: bool
    add_eos: bool
    chat_template: str | Sequence[Any] | None


def vocabulary_of(tokenizer: Any, rows: int, *configs: Any) -> GgufVocabulary:
    """Describe a fast byte-level BPE tokenizer.

    Args:
        tokenizer: the tokenizer.
        rows: number of rows of the model's embedding.
        configs: the model's config and generation config, which may name further end tokens.

    Raises:
        ExportError: the tokenizer is no byte-level BPE, its pre-tokenizer or normalizer has no name in llama.cpp, or it
            has more tokens than the model has rows.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    document = load_json(backend.to_str()) if backend is not None else {"model": {}}
    model = document["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise Inexpressible("GGUF export needs a byte-level BPE tokenizer (as of SmolLM, Llama 3, Qwen).")
    added = {token["content"]: token for token in document["added_tokens"]}
    ids = dict(model["vocab"]) | {name: token["id"] for name, token in added.items()}
    names = {number: name for name, number in ids.items()}
    if max(names) >= rows:
        raise ExportError(f"The tokenizer has token id {max(names)} but the model only {rows} embedding rows.")
    kinds = [_kind(names.get(number), added) for number in range(rows)]
    merges = model["merges"]
    add_bos, add_eos = _border_tokens(tokenizer)
    return GgufVocabulary(
        pre=pre_tokenizer_name(document),
        tokens=tuple(names.get(number, f"[PAD{number}]") for number in range(rows)),
        kinds=tuple(kinds),
        merges=tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in merges),
        special=_special(tokenizer, declared_ends(*configs)),
        add_bos=add_bos,
        add_eos=add_eos,
        chat_template=tokenizer.chat_template,
    )


def pre_tokenizer_name(document: dict[str, Any]) -> str:
    """Find llama.cpp's name of the pre-tokenizer in a parsed `tokenizer.json`.

    Where several names stand for the same rule, the first one in :data:`PRE_TOKENIZERS` is taken.

    Raises:
        ExportError: no rule in the table is this one.
    """
    from tokenizers import Tokenizer, models, normalizers

    ignores = bool(document["model"].get("ignore_merges"))
    for name, rule in PRE_TOKENIZERS.items():
        known = Tokenizer(models.BPE())
        known.pre_tokenizer = rule()
        if name == "qwen2":
            known.normalizer = normalizers.NFC()
        rules = load_json(known.to_str())
        same = all(_material(rules[part]) == _material(document[part]) for part in ("pre_tokenizer", "normalizer"))
        if same and ignores == (name == "llama-bpe"):
            return name
    raise Inexpressible(
        "The tokenizer splits or normalizes text by a rule that GGUF export does not know "
        f"(known: {', '.join(PRE_TOKENIZERS)})."
    )


def _material(node: Any) -> Any:
    """Strip a rule of the settings that change no token."""
    if isinstance(node, dict):
        return {key: _material(value) for key, value in node.items() if key not in _IMMATERIAL}
    return [_material(item) for item in node] if isinstance(node, list) else node


def _kind(name: str | None, added: dict[str, Any]) -> int:
    """Return llama.cpp's token type of a token; None is an embedding row without one."""
    if name is None:
        return UNUSED
    if name in added:
        return CONTROL if added[name]["special"] else USER_DEFINED
    return NORMAL


def _special(tokenizer: Any, ends: Collection[int]) -> dict[str, int]:
    """Return the ids of bos, eos, unk and pad, and of two further end tokens.

    llama.cpp stops at eos, eot and eom (special_eog_ids in src/llama-vocab.cpp), and at some spellings that it knows;
    a file can name no fourth end token.
    """
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    further = sorted(set(ends) - {ids["eos"]})
    ids |= dict(zip(("eos", "eot", "eom") if ids["eos"] is None else ("eot", "eom"), further, strict=False))
    return {name: int(number) for name, number in ids.items() if number is not None}


def _border_tokens(tokenizer: Any) -> tuple[bool, bool]:
    """Tell whether the tokenizer by itself opens a text with bos, and whether it closes it with eos."""
    ids = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    extra = len(ids) - len(bare)
    return extra > 0 and ids[0] == tokenizer.bos_token_id, extra > 0 and ids[-1] == tokenizer.eos_token_id


def add_vocabulary(writer: GGUFWriter, vocabulary: GgufVocabulary) -> None:
    """Write the `tokenizer.*` keys of a GGUF file."""
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
