"""Laws of vocabulary pruning, model side: kept rows keep their logits, ties stay, every id follows its token."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
import torch

from minigpt.errors import PlanError, UnsupportedModel
from minigpt.pruning.vocab import TrimmedTokenizer, encode_parent_ids, keep_tokens, trim_model, trim_tokenizer
from tests.pruning.test_vocab_tokenizer import counts_of
from tests.support.bpe_parents import falling_back, gappy, word_taking
from tests.support.tiny import FAMILIES, SENTENCES, tiny_model, tiny_tokenizer

TEXT = SENTENCES[0]


def child_of(tokenizer: Any, size: int = 384) -> TrimmedTokenizer:
    return trim_tokenizer(tokenizer, keep_tokens(tokenizer, counts_of(tokenizer), size))


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", [*FAMILIES, "gemma2"])
def test_kept_tokens_keep_their_logits(family: str, tied: bool) -> None:
    """On text of kept tokens the child's logits are the parent's, restricted to the kept tokens."""
    tokenizer, parent = tiny_tokenizer(), tiny_model(family, tied=tied)
    trimmed = child_of(tokenizer)
    child = trim_model(deepcopy(parent), trimmed)
    before = tokenizer(TEXT).input_ids
    after = trimmed.tokenizer(TEXT).input_ids
    assert encode_parent_ids(trimmed, after) == before
    torch.testing.assert_close(logits(child, after), logits(parent, before)[:, list(trimmed.old_ids)])
    embedding, head = child.get_input_embeddings(), child.get_output_embeddings()
    assert (head.weight is embedding.weight) == tied
    assert embedding.weight.shape == head.weight.shape == (384, 32)
    assert (
        child.config.vocab_size
        == getattr(child, "vocab_size", 384)
        == embedding.num_embeddings
        == head.out_features
        == 384
    )


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("make", [tiny_tokenizer, gappy, word_taking, falling_back])
def test_saved_and_loaded_by_stock_classes_it_is_the_same(make: Any, tied: bool, tmp_path: Any) -> None:
    """Plain `AutoTokenizer` and `AutoModelForCausalLM` give the same ids, logits and greedy text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = make()
    parent = tiny_model("llama", vocab_size=-(-len(tokenizer) // 64) * 64, tied=tied)
    parent.generation_config.eos_token_id = parent.config.eos_token_id = tokenizer.eos_token_id
    trimmed = child_of(tokenizer, 448)
    child = trim_model(parent, trimmed)
    child.save_pretrained(tmp_path)
    trimmed.tokenizer.save_pretrained(tmp_path)
    again, reader = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for text in (*SENTENCES, "unseen 東京\x04 🙂\r\n"):
        ids = reader(text).input_ids
        assert ids == trimmed.tokenizer(text).input_ids
        assert torch.equal(logits(again, ids), logits(child, ids))
    assert again.generation_config.eos_token_id == reader.eos_token_id == again.config.eos_token_id
    prompt = reader(TEXT, return_tensors="pt").input_ids
    greedy = [
        model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False, pad_token_id=0
        )
        for model in (child, again)
    ]
    assert torch.equal(*greedy)
    assert (again.get_input_embeddings().weight is again.get_output_embeddings().weight) == tied


def test_keeping_everything_changes_no_byte() -> None:
    tokenizer, parent = tiny_tokenizer(), tiny_model("llama", vocab_size=576)
    child = trim_model(deepcopy(parent), trim_tokenizer(tokenizer, keep_tokens(tokenizer, {}, 4096)))
    assert child.config.to_dict() == parent.config.to_dict()
    before, after = parent.state_dict(), child.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_added_bytes_start_as_the_mean_byte_and_padding_never_wins() -> None:
    tokenizer = gappy()
    parent = tiny_model("llama", tied=False)
    parent.lm_head.bias = torch.nn.Parameter(torch.randn(512))
    trimmed = child_of(tokenizer, 384)
    child = trim_model(deepcopy(parent), trimmed, multiple=256)
    old, new = parent.get_input_embeddings().weight, child.get_input_embeddings().weight
    letters = [tokenizer.convert_tokens_to_ids(token) for token in _byte_spelling() if token in tokenizer.get_vocab()]
    assert len(letters) == 248
    torch.testing.assert_close(new[trimmed.old_ids.index(-1)], old[letters].mean(dim=0))
    assert new.shape[0] == child.config.vocab_size == len(child.lm_head.bias) == 512
    for seed in range(20):
        torch.manual_seed(seed)
        scores = logits(child, torch.randint(0, 384, (30,)).tolist())
        assert (scores[:, 384:] < scores[:, :384].max(dim=-1, keepdim=True).values).all()


def _byte_spelling() -> list[str]:
    """How GPT-2 spells bytes, written out anew: printable Latin-1 as itself, the rest from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in plain] + [chr(0x100 + n) for n in range(256 - len(plain))]


def test_every_id_of_the_configs_follows_its_token() -> None:
    tokenizer = word_taking()
    model = tiny_model("llama")
    trimmed = child_of(tokenizer)
    other_gone = min(set(range(len(tokenizer))) - set(trimmed.old_ids))
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    kept, gone = tokenizer.convert_tokens_to_ids("a"), tokenizer.convert_tokens_to_ids("Ġzzz")
    model.config.update({"bos_token_id": bos, "eos_token_id": [eos, pad, gone], "pad_token_id": pad})
    generation = model.generation_config
    generation.update(bos_token_id=bos, eos_token_id=[eos, gone], pad_token_id=pad, forced_bos_token_id=gone)
    generation.update(
        suppress_tokens=[kept, other_gone], begin_suppress_tokens=[gone], bad_words_ids=[[kept], [kept, gone]]
    )
    generation.update(sequence_bias=[[[kept, eos], -2.0], [[gone], 1.0]], forced_eos_token_id=eos)
    generation.forced_decoder_ids = [[1, eos], [2, gone]]
    model.model.padding_idx = model.model.embed_tokens.padding_idx = pad
    trim_model(model, trimmed)
    child = trimmed.tokenizer
    new_bos, new_eos, new_pad = child.bos_token_id, child.eos_token_id, child.pad_token_id
    new_kept = child.convert_tokens_to_ids("a")
    assert new_eos != eos and gone not in trimmed.old_ids
    assert model.config.bos_token_id == new_bos
    assert model.config.eos_token_id == [new_eos, new_pad]
    assert model.config.pad_token_id == model.model.padding_idx == new_pad
    assert model.model.embed_tokens.padding_idx == new_pad
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (new_bos, [new_eos], new_pad)
    assert (generation.forced_bos_token_id, generation.forced_eos_token_id) == (None, new_eos)
    assert (generation.suppress_tokens, generation.begin_suppress_tokens) == ([new_kept], None)
    assert generation.bad_words_ids == [[new_kept]]
    assert generation.sequence_bias == [[[new_kept, new_eos], -2.0]]
    assert generation.forced_decoder_ids == [[1, new_eos]]


def test_nested_text_configs_are_renumbered() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tiny_tokenizer()
    text = tiny_model("gemma3_text").config
    model = AutoModelForCausalLM.from_config(text)
    model.config = AutoConfig.for_model("gemma3", text_config=text.to_dict(), eos_token_id=460)
    model.config.text_config.eos_token_id = 2
    trimmed = trim_tokenizer(tokenizer, keep_tokens(tokenizer, Counter({460: 9}), 384))
    trim_model(model, trimmed)
    assert model.config.text_config.vocab_size == 384
    assert model.config.text_config.eos_token_id == 2
    assert model.config.eos_token_id == trimmed.new_ids[460]


def test_gradient_flags_and_dtype_stay() -> None:
    model = tiny_model("llama", tied=False).to(torch.bfloat16)
    model.get_input_embeddings().weight.requires_grad_(False)
    trim_model(model, child_of(gappy()))
    assert model.get_input_embeddings().weight.dtype == model.lm_head.weight.dtype == torch.bfloat16
    assert not model.get_input_embeddings().weight.requires_grad
    assert model.lm_head.weight.requires_grad


def test_models_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PlanError, match="parent's own tokenizer"):
        trim_model(tiny_model("llama", vocab_size=256), child_of(tiny_tokenizer()))
    model = tiny_model("llama")
    model.second = torch.nn.Embedding(512, 4)
    with pytest.raises(UnsupportedModel, match="second"):
        trim_model(model, child_of(tiny_tokenizer()))
