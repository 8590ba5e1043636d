"""Language towers: the text part of a checkpoint with a vision part computes the same as a plain text model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from minigpt import assets
from minigpt.assets.towers import TOWERS
from minigpt.errors import AssetError
from minigpt.progress import Silent
from tests.support.archsuite import logits, random_batch
from tests.support.tiny import tiny_tokenizer

TEXT: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION: dict[str, dict[str, Any]] = {
    "gemma3": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    },
    "qwen2_5_vl": {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32},
    "qwen3_vl": {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 32,
        "deepstack_visual_indexes": [0],
    },
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
IDS = random_batch(pad=0).input_ids


class Notes(Silent):
    """A reporter that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        """Keep a note."""
        self.notes.append(message)


def checkpoint(folder: Path, kind: str, *, tied: bool) -> Any:
    """Save a tiny random checkpoint with a vision part, and return its model."""
    torch.manual_seed(0)
    text = dict(TEXT)
    if kind == "gemma3":
        text |= {
            "query_pre_attn_scalar": 8,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        }
    else:
        text["rope_parameters"] = ROPE | {"mrope_section": [2, 1, 1]}
    tokens = {"image_token_id": 500, "video_token_id": 501, "vision_start_token_id": 502, "vision_end_token_id": 503}
    special = {"image_token_index": 500, "mm_tokens_per_image": 4} if kind == "gemma3" else tokens
    config = AutoConfig.for_model(
        kind, text_config=text, vision_config=VISION[kind], tie_word_embeddings=tied, **special
    )
    config.text_config.tie_word_embeddings = tied
    model = AutoModelForImageTextToText.from_config(config).float().eval()
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("tied", [True, False])
def test_the_text_part_computes_what_the_checkpoint_does(
    kind: str, tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same logits of text in a stock text class, a sentence about what is dropped, and a cached folder after it."""
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    whole, notes = checkpoint(tmp_path / "vl", kind, tied=tied), Notes()
    parent = assets.parent(str(tmp_path / "vl"), reporter=notes)
    assert "the vision part is dropped" in notes.notes[0] and TOWERS[kind] in notes.notes[0]
    model = assets.load_model(parent.path, dtype=torch.float32)
    assert model.config.model_type == TOWERS[kind] and model.config.tie_word_embeddings is tied
    torch.testing.assert_close(logits(model, IDS), logits(whole, IDS), rtol=1e-5, atol=1e-5)
    assert not any("visi" in name or "visual" in name for name in load_file(parent.path / "model.safetensors"))
    assert assets.load_tokenizer(parent.path)("a")["input_ids"] == tiny_tokenizer()("a")["input_ids"]
    again = assets.parent(str(tmp_path / "vl"))
    assert (again.path, again.fingerprint) == (parent.path, parent.fingerprint) and parent.precision == "float32"


@pytest.mark.parametrize("kind", TOWERS)
def test_names_of_older_files_are_understood(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 4 wrote Gemma's text as `language_model.model.`, and Qwen's as `model.`."""
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    whole, folder = checkpoint(tmp_path / "vl", kind, tied=False), tmp_path / "vl"
    stored = load_file(folder / "model.safetensors")
    old: dict[str, torch.Tensor] = {}
    for name, tensor in stored.items():
        inner = name.replace("language_model.", "").removeprefix("model.")
        if "vis" in name or "projector" in name:
            old[inner] = tensor
        elif name.startswith("lm_head."):
            old[f"language_model.{name}" if kind == "gemma3" else name] = tensor
        else:
            old[f"language_model.model.{inner}" if kind == "gemma3" else f"model.{inner}"] = tensor
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    model = assets.load_model(assets.parent(str(folder)).path, dtype=torch.float32)
    torch.testing.assert_close(logits(model, IDS), logits(whole, IDS), rtol=1e-5, atol=1e-5)


def test_checkpoints_without_text_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    checkpoint(tmp_path / "vl", "qwen3_vl", tied=True)
    save_file({"model.visual.a": torch.zeros(2)}, tmp_path / "vl" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssetError, match=r"holds no language model.*Fetch it again"):
        assets.parent(str(tmp_path / "vl"))
    config = json.loads((tmp_path / "vl" / "config.json").read_text())
    (tmp_path / "vl" / "config.json").write_text(json.dumps(config | {"text_config": {"hidden_size": "wide"}}))
    with pytest.raises(AssetError, match="Cannot read the config"):
        assets.parent(str(tmp_path / "vl"))
