"""Tokenizers from GGUF metadata, refused where they would give token ids that the model was not trained on.

A GGUF file stores vocabulary and merges but only *names* the pre-tokenizer (`tokenizer.ggml.pre`), so unknown names are
refused. SentencePiece vocabularies of Gemma come without merges, and releases of transformers differ in how they read
them: some cut all text into characters. Gemma's are rebuilt here, and every other tokenizer that transformers rebuilds
has to read words of its own vocabulary as one token each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from minigpt.errors import AssetError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

Metadata = Mapping[str, Any]
# Token types of GGUF.
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
# The character that stands for a space in SentencePiece vocabularies.
SPACE = "▁"
# Words of a vocabulary that are tried, their letters at least, and the share that must come back whole.
WORDS, LETTERS, WHOLE = 200, 4, 0.5

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


def _gpt2() -> PreTokenizer:
    """Return GPT-2's pre-tokenizer."""
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _digits() -> PreTokenizer:
    """Return GPT-2's pre-tokenizer with every digit apart, so that "2020" is four tokens."""
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _split(pattern: str) -> PreTokenizer:
    """Return a pre-tokenizer that splits text by a regular expression."""
    from tokenizers import Regex, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior="isolated"), byte_level])


PRE_TOKENIZERS: dict[str, Callable[[], PreTokenizer]] = {
    "gpt-2": _gpt2,
    "olmo": _gpt2,
    "mpt": _gpt2,
    "smollm": _digits,
    "starcoder": _digits,
    "llama-bpe": lambda: _split(LLAMA3_SPLIT),
    "qwen2": lambda: _split(QWEN2_SPLIT),
}


def byte_level_tokenizer(metadata: Metadata) -> PreTrainedTokenizerFast:
    """Rebuild the tokenizer of a GGUF file whose `tokenizer.ggml.model` is `gpt2`.

    Args:
        metadata: The file's key-value pairs, with arrays as lists.

    Raises:
        AssetError: The pre-tokenizer cannot be rebuilt exactly.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pre = metadata.get("tokenizer.ggml.pre", "")
    if pre not in PRE_TOKENIZERS:
        raise AssetError(
            f"This GGUF file splits text by {pre or 'an unnamed rule'!r}, which cannot be rebuilt exactly (known: "
            f"{', '.join(sorted(PRE_TOKENIZERS))}). Use the original model's folder or Hub id instead."
        )
    vocabulary = {token: index for index, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pre == "llama-bpe"))
    backend.pre_tokenizer = PRE_TOKENIZERS[pre]()
    backend.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    _add_marked_tokens(backend, metadata)
    names = _special_names(metadata)
    _add_borders(backend, names, metadata)
    wrap: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = wrap(
        tokenizer_object=backend,
        chat_template=metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **_context(metadata),
        **names,
    )
    return tokenizer


def gemma_tokenizer(metadata: Metadata) -> PreTrainedTokenizerBase:
    """Rebuild the tokenizer of a Gemma file, whose merges follow from the order of its tokens.

    Args:
        metadata: The file's key-value pairs, with arrays as lists.
    """
    from tokenizers import AddedToken
    from transformers import GemmaTokenizer
    from transformers.tokenization_utils_base import generate_merges

    spelled = [token if token.strip() else token.replace(" ", SPACE) for token in metadata["tokenizer.ggml.tokens"]]
    vocabulary = {token: index for index, token in enumerate(spelled)}
    merges = generate_merges(vocabulary, {token: -index for token, index in vocabulary.items()})
    wrap: Any = GemmaTokenizer
    tokenizer: PreTrainedTokenizerBase = wrap(
        vocab=vocabulary,
        merges=merges,
        add_bos_token=metadata.get("tokenizer.ggml.add_bos_token", True),
        add_eos_token=metadata.get("tokenizer.ggml.add_eos_token", False),
        chat_template=metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **_context(metadata),
        **_special_names(metadata),
    )
    kinds = metadata.get("tokenizer.ggml.token_type", ())
    marked = [(token, kind) for token, kind in zip(spelled, kinds, strict=False) if kind in (CONTROL, USER_DEFINED)]
    added: Any = [AddedToken(token, normalized=False, special=kind == CONTROL) for token, kind in marked]
    tokenizer.add_tokens(added)
    return tokenizer


def check_words(tokenizer: PreTrainedTokenizerBase, metadata: Metadata) -> None:
    """Check that a rebuilt tokenizer reads words of its vocabulary as the one token that each of them is.

    Args:
        tokenizer: What was rebuilt.
        metadata: The file's key-value pairs, with arrays as lists.

    Raises:
        AssetError: Most words fall into pieces.
    """
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata.get("tokenizer.ggml.token_type", ())
    named = ((token, kind) for token, kind in zip(tokens, kinds, strict=False) if token.startswith((SPACE, "Ġ")))
    words = [token[1:] for token, kind in named if kind == NORMAL and token[1:].isalpha() and token.isprintable()]
    words = [word for word in words if word.isascii() and len(word) >= LETTERS][:WORDS]
    whole = [len(tokenizer.encode(f"a {word}", add_special_tokens=False)) <= 2 for word in words]
    if sum(whole) < WHOLE * len(whole):
        from transformers import __version__

        raise AssetError(
            f"transformers {__version__} rebuilds this file's tokenizer wrongly: it cuts the word {words[0]!r}, which "
            "is a token, into pieces. Install a newer transformers, or give the original model's folder or Hub id."
        )


def _add_marked_tokens(backend: Tokenizer, metadata: Metadata) -> None:
    """Add the tokens that text is never split inside: control tokens as special ones, user-defined ones as plain."""
    from tokenizers import AddedToken

    kinds = metadata.get("tokenizer.ggml.token_type", ())
    for token, kind in zip(metadata["tokenizer.ggml.tokens"], kinds, strict=False):
        if kind == CONTROL:
            backend.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif kind == USER_DEFINED:
            backend.add_tokens([AddedToken(token, normalized=False, special=False)])


def _special_names(metadata: Metadata) -> dict[str, str]:
    """Return the special tokens under transformers' names, e.g. `bos_token`."""
    keys = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in keys.items()}
    return {name: metadata["tokenizer.ggml.tokens"][index] for name, index in ids.items() if index is not None}


def _add_borders(backend: Tokenizer, names: Mapping[str, str], metadata: Metadata) -> None:
    """Make the tokenizer add the bos and eos token to a text if the file asks for it."""
    from tokenizers import processors

    bos = names.get("bos_token") if metadata.get("tokenizer.ggml.add_bos_token", False) else None
    eos = names.get("eos_token") if metadata.get("tokenizer.ggml.add_eos_token", False) else None
    if bos or eos:
        single = " ".join(part for part in (bos, "$A", eos) if part)
        tokens = [(token, backend.token_to_id(token)) for token in dict.fromkeys((bos, eos)) if token]
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=tokens)


def _context(metadata: Metadata) -> dict[str, int]:
    """Return the context length as transformers' argument, if the file gives one."""
    length = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    return {"model_max_length": int(length)} if length else {}
