"""Vocabulary pruning of the packaged parent: 21 missing bytes, 49,152 tokens, real weights."""

from __future__ import annotations

from collections import Counter

import pytest

pytestmark = pytest.mark.slow

KEPT = "The patient has a fever and the doctor said that the blood test is not ready."


def test_the_default_parent_loses_two_thirds_of_its_tokens_and_no_text() -> None:
    import torch

    from minigpt import assets
    from minigpt.pruning.vocab import encode_parent_ids, keep_tokens, trim_model, trim_tokenizer

    parent = assets.parent(assets.DEFAULT_BASE)
    tokenizer, model = assets.load_tokenizer(parent.path), assets.load_model(parent.path)
    before = tokenizer(KEPT).input_ids
    trimmed = trim_tokenizer(tokenizer, keep_tokens(tokenizer, Counter(before), 16384))
    child = trimmed.tokenizer
    assert len(trimmed.old_ids) == len(child) == 16384
    assert trimmed.old_ids.count(-1) == 21

    every_byte = bytes(range(128)).decode() + "".join(
        chr(code) for code in range(0x80, 0x110000, 997) if not 0xD800 <= code < 0xE000
    )
    assert child.decode(child(every_byte).input_ids) == every_byte
    assert tokenizer.decode(tokenizer(every_byte).input_ids) != every_byte

    after = child(KEPT).input_ids
    assert encode_parent_ids(trimmed, after) == before
    kept = [old for old in trimmed.old_ids if old >= 0]
    with torch.no_grad():
        wanted = model(torch.tensor([before])).logits[0][:, kept]
        found = trim_model(model, trimmed)(torch.tensor([after])).logits[0]
    assert found.shape[1] == model.config.vocab_size == 16384
    torch.testing.assert_close(found[:, : len(kept)], wanted)
    chat = child.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat == tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert child(chat).input_ids.count(child.eos_token_id) == tokenizer(chat).input_ids.count(tokenizer.eos_token_id)
