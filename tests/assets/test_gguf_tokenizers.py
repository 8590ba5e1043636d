"""Tokenizers of SentencePiece GGUF files: Gemma's merges follow the order of tokens, and a wrong reader is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from minigpt.assets import gguf
from minigpt.assets.gguf_tokenizer import CONTROL, NORMAL, USER_DEFINED, check_words, gemma_tokenizer
from minigpt.errors import AssetError
from minigpt.pruning.vocab import closure, trim_tokenizer

BYTE = 6
SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>")
# Products of merges, in the order in which they were learned; "  " is how files spell two spaces.
LEARNED = ("  ", "he", "th", "the", "▁t", "▁the", "er", "▁ther", "ll", "hell", "hello")
LETTERS = ("▁", "\n", *"abcdefghilnoprstuvwxyz")


def metadata(**changed: Any) -> dict[str, Any]:
    """The tokenizer of a small Gemma file; scores mislead, as those of real files do."""
    spelled = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), "<start_of_turn>", "\n\n", *LEARNED, *LETTERS]
    kinds = [CONTROL] * 4 + [BYTE] * 256 + [CONTROL, USER_DEFINED, USER_DEFINED]
    kinds += [NORMAL] * (len(spelled) - len(kinds))
    return {
        "general.architecture": "gemma3",
        "gemma3.context_length": 512,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": spelled,
        "tokenizer.ggml.scores": [0.0] * len(spelled),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{{ messages[0].content }}",
        **changed,
    }


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("the", ["the"]),
        ("he the  other", ["he", "▁the", "▁▁", "o", "the", "r"]),
        ("hello\n\nthe", ["hello", "\n\n", "the"]),
        ("<start_of_turn>a\n", ["<start_of_turn>", "a", "\n"]),
        ("é", ["<0xC3>", "<0xA9>"]),
        (" the", ["▁the"]),
    ],
)
def test_the_merges_of_gemma_follow_the_order_of_its_tokens(text: str, pieces: list[str]) -> None:
    tokenizer = gemma_tokenizer(metadata())
    ids = tokenizer.encode(text)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", *pieces]
    assert tokenizer.decode(ids, skip_special_tokens=False).removeprefix("<bos>") == text


def test_special_tokens_and_template_of_gemma_are_kept() -> None:
    tokenizer = gemma_tokenizer(metadata(**{"tokenizer.ggml.add_bos_token": False}))
    assert tokenizer.encode("the") == [metadata()["tokenizer.ggml.tokens"].index("the")]
    assert [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id] == [
        *range(4)
    ]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "the"}], tokenize=False) == "the"
    assert tokenizer.model_max_length == 512


def test_the_vocabulary_of_gemma_can_be_trimmed() -> None:
    tokenizer = gemma_tokenizer(metadata())
    trimmed = trim_tokenizer(tokenizer, closure(tokenizer, tokenizer.encode("the  hello")))
    assert len(trimmed.old_ids) < len(tokenizer)
    for text in ("the  hello", "hello\n\nthe", "zebra é"):
        assert trimmed.tokenizer.decode(trimmed.tokenizer.encode(text), skip_special_tokens=True) == text
    assert [trimmed.old_ids[new] for new in trimmed.tokenizer.encode("the hello")] == tokenizer.encode("the hello")


def test_gemma_files_are_read_by_our_own_rules() -> None:
    tokenizer = gguf._tokenizer(Path("gemma.gguf"), metadata())
    assert tokenizer.tokenize("the hello") == ["the", "▁", "hello"]


def with_letters_apart(facts: dict[str, Any]) -> PreTrainedTokenizerFast:
    """A reader that takes the scores of a BPE vocabulary for those of a Unigram one, where letters are cheapest."""
    vocabulary = [(token, 0.0 if len(token) == 1 else -100.0) for token in facts["tokenizer.ggml.tokens"]]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Replace("▁", " ")
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=backend)


def test_a_reader_that_cuts_words_into_letters_is_refused() -> None:
    facts = metadata()
    words = [f"▁{first}{second}{third}er" for first in "abcd" for second in "ehil" for third in "nopr"]
    facts["tokenizer.ggml.tokens"] += words
    facts["tokenizer.ggml.token_type"] += [NORMAL] * len(words)
    with pytest.raises(AssetError, match="rebuilds this file's tokenizer wrongly: it cuts the word 'ther'"):
        check_words(with_letters_apart(facts), facts)


def test_a_reader_that_keeps_words_whole_is_taken() -> None:
    facts = metadata()
    check_words(gemma_tokenizer(facts), facts)
    check_words(with_letters_apart(facts), {"tokenizer.ggml.tokens": ["a", "b"]})
