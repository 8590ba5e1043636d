"""Tiny parents of every tokenizer kind that vocabulary pruning knows."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tests.support.tiny import SENTENCES, tiny_tokenizer


def rebuilt(tokenizer: Any, change: Any) -> Any:
    """A copy of `tokenizer` whose serialized form went through `change`."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    document = json.loads(tokenizer.backend_tokenizer.to_str())
    change(document)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(document)),
        chat_template=tokenizer.chat_template,
        **tokenizer.special_tokens_map,
    )


@cache
def gappy() -> Any:
    """A byte-level parent that lacks eight byte tokens, as the default parent lacks 21."""

    def change(document: dict[str, Any]) -> None:
        left = [token for token in document["model"]["vocab"] if token not in set("ĄĆēĔĖĝÁõ")]
        document["model"]["vocab"] = {token: number for number, token in enumerate(left)}

    return rebuilt(tiny_tokenizer(), change)


@cache
def word_taking() -> Any:
    """A Llama-3-like parent: whole words first, specials beyond the model's vocabulary, a BOS template."""
    from tokenizers import processors

    def change(document: dict[str, Any]) -> None:
        document["model"]["ignore_merges"] = True
        words = [token for token in document["model"]["vocab"] if not token.startswith("<|")]
        document["model"]["vocab"] = {token: number for number, token in enumerate(words)} | {"Ġzzz": len(words)}
        for number, token in enumerate(document["added_tokens"]):
            token["id"] = len(words) + 1 + number

    tokenizer = rebuilt(tiny_tokenizer(), change)
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
            ),
        ]
    )
    return tokenizer


@cache
def falling_back() -> Any:
    """A Gemma/Llama-2-like parent: characters, `<0x..>` bytes for the rest, every split of a token as a merge."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=specials, show_progress=False)
    words = [piece for sentence in SENTENCES for piece in sentence.replace(" ", " \0").split("\0")]
    trained.train_from_iterator(words * 3, trainer)
    vocab = trained.get_vocab()
    order = sorted((token for token in vocab if len(token) > 1 and token not in specials), key=vocab.__getitem__)
    merges = [
        (token[:cut], token[cut:])
        for token in order
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(specials[:4])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


PARENTS = {
    "byte-level": tiny_tokenizer,
    "gappy": gappy,
    "word-taking": word_taking,
    "falling-back": falling_back,
}
