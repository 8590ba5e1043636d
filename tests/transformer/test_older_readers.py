"""Files of a build are read by transformers 4 as well: rotary settings, type and tokenizer under the older names."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

from minigpt.transformer.families import ARCHITECTURES
from minigpt.transformer.older_readers import older_names, older_tokenizer, open_to_older_readers
from tests.support.tiny import tiny_config, tiny_tokenizer

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}


def test_rotary_base_and_scaling_stand_under_the_older_names() -> None:
    names = older_names({"model_type": "llama", "rope_parameters": LLAMA3, "dtype": "bfloat16"})
    scaling = {name: value for name, value in LLAMA3.items() if name != "rope_theta"}
    assert names == {"rope_theta": 500000.0, "rope_scaling": scaling, "torch_dtype": "bfloat16"}


def test_without_scaling_there_is_the_base_alone() -> None:
    config = {"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}}
    assert older_names(config) == {"rope_theta": 1e5}


def test_kinds_of_layers_have_bases_of_their_own() -> None:
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    assert older_names({"model_type": "gemma3_text", "rope_parameters": rope}) == {
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }


def test_the_tokenizer_gets_a_class_and_a_list_that_both_generations_know() -> None:
    saved = {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<x>"], "eos_token": "</s>"}
    assert older_tokenizer(saved) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<x>"],
        "eos_token": "</s>",
    }


@pytest.mark.parametrize("family", sorted(ARCHITECTURES))
def test_transformers_itself_reads_the_same_as_before(family: str, tmp_path: Path) -> None:
    config: Any = tiny_config(family)
    if (getattr(config, "rope_parameters", None) or {}).get("rope_theta"):
        config.rope_parameters["rope_theta"] = 123456.0
    config.save_pretrained(tmp_path)
    before = AutoConfig.from_pretrained(tmp_path)
    open_to_older_readers(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == before.to_dict()
    stored = json.loads((tmp_path / "config.json").read_text())
    if (before.to_dict().get("rope_parameters") or {}).get("rope_theta"):
        assert stored["rotary_emb_base" if family == "gpt_neox" else "rope_theta"] == 123456.0


def test_a_saved_tokenizer_gives_the_same_tokens(tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|x|>"]})
    tokenizer.save_pretrained(tmp_path)
    open_to_older_readers(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "The heart <|x|> pumps.<|im_end|>"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.all_special_tokens == tokenizer.all_special_tokens
