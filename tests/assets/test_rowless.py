"""A tokenizer with an added token that the model has no row for is loaded without it; everything else stays."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from minigpt.assets import load_tokenizer
from minigpt.assets.rowless import rowless
from tests.support.tiny import tiny_tokenizer

TEXT = "The heart <image> pumps.<|im_end|>"


def folder_with(path: Path, rows: int) -> Path:
    """A tokenizer with one special token more than the tiny one has, beside a config of `rows` rows."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.image_token = "<image>"
    tokenizer.save_pretrained(path)
    (path / "config.json").write_text(json.dumps({"vocab_size": rows}))
    return path


def test_the_token_is_left_out_and_its_spelling_is_text(tmp_path: Path) -> None:
    plain = tiny_tokenizer()
    folder = folder_with(tmp_path, len(plain))
    assert rowless(folder) == {"<image>"}
    tokenizer = load_tokenizer(folder)
    assert len(tokenizer) == len(plain)
    assert tokenizer(TEXT)["input_ids"] == plain(TEXT)["input_ids"]
    assert max(tokenizer.get_vocab().values()) < len(plain)
    assert tokenizer.all_special_tokens == plain.all_special_tokens
    assert tokenizer.chat_template == plain.chat_template


def test_a_token_with_a_row_stays(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, len(tiny_tokenizer()) + 1)
    assert not rowless(folder)
    assert "<image>" in load_tokenizer(folder).get_vocab()


def test_without_a_readable_config_nothing_is_left_out(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 1)
    for content in ("[]", "{", '{"vocab_size": "many"}'):
        (folder / "config.json").write_text(content)
        assert not rowless(folder)
