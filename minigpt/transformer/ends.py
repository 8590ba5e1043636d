"""Tokens that end a text: the one that training puts at the end of a document, and all at which generation stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Special tokens that stand between the documents of a pre-training text, by their usual spellings.
SEPARATORS = frozenset({"<|endoftext|>", "<|end_of_text|>", "<|end▁of▁sentence|>", "</s>", "<eos>"})


def end_tokens(tokenizer: Any, *configs: Any) -> frozenset[int]:
    """Collect the ids of all tokens that end a text.

    These are the tokenizer's end token, the end tokens of the configs (a chat model often names several in its
    generation config), and the separator of the pre-training text, which some tokenizers use only as padding or as the
    unknown token.

    Args:
        tokenizer: the model's tokenizer.
        configs: the model's config and generation config, as far as there are any.
    """
    special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    separators = {number for token, number in special if str(token) in SEPARATORS}
    return frozenset({tokenizer.eos_token_id} - {None} | declared_ends(*configs) | separators)


def declared_ends(*configs: Any) -> set[int]:
    """Collect the end tokens that configs declare, as one id or as a list."""
    ends: set[Any] = set()
    for config in configs:
        declared = getattr(config, "eos_token_id", None)
        ends.update(declared if isinstance(declared, (list, tuple)) else {declared})
    return ends - {None}


def document_end(tokenizer: Any, *configs: Any) -> int | None:
    """Return the token that training puts at the end of a document; None if the model would not stop at it.

    It is the tokenizer's end token, also where that ends the turns of a chat and another one separated the documents
    of the pre-training text. A chat model stops at its end token after plain text, too, and hardly ever gives the
    separator; and a model that learned to end its text by the separator would no longer end its turns.

    Args:
        tokenizer: the model's tokenizer.
        configs: the model's config and generation config; where they declare end tokens, they must hold this one.
    """
    end, declared = tokenizer.eos_token_id, declared_ends(*configs)
    return None if end is None or (declared and end not in declared) else int(end)


def configs_in(folder: Path) -> tuple[Any, ...]:
    """Read the config of a model folder, and its generation config if it has one."""
    from transformers import AutoConfig, GenerationConfig

    has_rules = (folder / "generation_config.json").exists()
    rules = (GenerationConfig.from_pretrained(folder),) if has_rules else ()
    return (AutoConfig.from_pretrained(folder), *rules)
