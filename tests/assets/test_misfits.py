"""Model folders whose config, weights and neighbours do not fit each other, and configs that name code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from minigpt.assets import load_model, parent
from minigpt.assets.parents import check_ties
from minigpt.errors import MiniGPTError, UnsupportedModel
from minigpt.models import find
from tests.support.tiny import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def test_rows_other_than_the_config_says_are_named_with_both_numbers(folder: Path) -> None:
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    change(folder, vocab_size=rows - 7)
    with pytest.raises(MiniGPTError, match=f"has the shape {rows:,} x .* asks for {rows - 7:,} x .*vocab_size"):
        load_model(folder)


def test_codes_of_a_quantization_are_no_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "up_proj" in name)
    save_file({**tensors, f"{name}_scale": torch.ones(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModel, match=f"nothing reads {name}_scale"):
        load_model(folder)
    save_file(
        {**tensors, name: tensors[name].to(torch.float8_e4m3fn)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(UnsupportedModel, match="F8_E4M3"):
        parent(str(folder))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "hf_quant_config.json").write_text("{}")
    with pytest.raises(UnsupportedModel, match="quantized"):
        load_model(folder)


@pytest.mark.parametrize("equal", [True, False])
def test_a_second_matrix_behind_a_tied_flag_counts_if_it_differs(folder: Path, equal: bool) -> None:
    tensors = load_file(folder / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    change(folder, tie_word_embeddings=True)
    save_file({**tensors, "lm_head.weight": embedding * (1 if equal else 2)}, folder / "model.safetensors")
    if equal:
        check_ties(folder)
    else:
        with pytest.raises(UnsupportedModel, match='"tie_word_embeddings": false'):
            check_ties(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"vocab_size": "2048"},
        {"num_attention_heads": 0},
        {"hidden_act": "nope"},
        {"rope_parameters": {"rope_type": "nope", "rope_theta": 1}},
        {"quantization_config": "x"},
        {"dtype": "nope"},
        {"model_type": []},
    ],
)
def test_odd_configs_end_in_one_sentence(folder: Path, values: dict[str, Any]) -> None:
    change(folder, **values)
    with pytest.raises(MiniGPTError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "null", "[" * 100_000, "{", "\x00"])
def test_a_config_that_is_none_ends_in_one_sentence(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    for job in (load_model, lambda path: find.find_config(str(path))):
        with pytest.raises(MiniGPTError) as caught:
            job(folder)
        assert "\n" not in str(caught.value)
    with pytest.raises(MiniGPTError) as refused:  # a reference is looked at before its folder is loaded
        parent(str(folder))
    assert "\n" not in str(refused.value)


def test_code_that_a_config_names_is_never_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    change(folder, model_type="evil", auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Model"})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    for job in (load_model, lambda path: find.find_config(str(path)), lambda path: parent(str(path))):
        with pytest.raises(MiniGPTError, match="never run"):
            job(folder)
    assert not (tmp_path / "ran").exists()
