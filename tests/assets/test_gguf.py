"""GGUF parents: the plain folder computes what the file computes and splits text as the model was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from minigpt.assets import DEFAULT_BASE, load_model, load_tokenizer, parent, resolve
from minigpt.assets.gguf import conversion_record, convert_gguf, lossless_dtype
from minigpt.assets.gguf_tokenizer import byte_level_tokenizer
from minigpt.errors import AssetError
from tests.support.tiny import tiny_model

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


def alphabet() -> list[str]:
    """The 256 byte symbols of byte-level BPE, by the rule of the GPT-2 paper's code."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = (chr(256 + n) for n in range(256))
    return [chr(byte) if byte in plain else next(spare) for byte in range(256)]


def metadata(pre: str | None = "smollm", **changes: Any) -> dict[str, Any]:
    """Three specials, the byte symbols, "20" and " t"; one plain added token at the end."""
    tokens = [*SPECIALS, *alphabet(), "20", "Ġt", "<think>"]
    values = {
        "general.architecture": "llama",
        "llama.context_length": 256,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL] * 3 + [NORMAL] * 258 + [USER_DEFINED],
        "tokenizer.ggml.merges": ["2 0", "Ġ t"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    if pre is not None:
        values["tokenizer.ggml.pre"] = pre
    return {**values, **changes}


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Query and key rows in GGML's order: rotary pairs side by side instead of half a head apart."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path, model: Any, values: dict[str, Any], quantize: gguf.GGMLQuantizationType | None = None
) -> Path:
    """A llama-architecture GGUF of a tiny model, written independently of the code under test."""
    config, writer = model.config, gguf.GGUFWriter(path, values["general.architecture"])
    writer.add_context_length(256)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1 if quantize else gguf.LlamaFileType.ALL_F32)
    for key, value in values.items():
        if key.startswith("tokenizer"):
            writer.add_key_value(key, value, *_kind(key, value))
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        data = tensor.float().numpy()
        if name.startswith("model.layers."):
            index, rest = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
            data = interleaved(data, heads[names[rest]]) if names[rest] in heads else data
            target = f"blk.{index}.{names[rest]}.weight"
        elif name == "lm_head.weight":
            continue
        else:
            target = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
        if quantize and data.ndim == 2:
            writer.add_tensor(target, gguf.quants.quantize(data, quantize), raw_dtype=quantize)
        else:
            writer.add_tensor(target, np.ascontiguousarray(data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _kind(key: str, value: Any) -> tuple[Any, ...]:
    kinds = {bool: gguf.GGUFValueType.BOOL, int: gguf.GGUFValueType.UINT32, str: gguf.GGUFValueType.STRING}
    if isinstance(value, list):
        inner = gguf.GGUFValueType.INT32 if isinstance(value[0], int) else gguf.GGUFValueType.STRING
        return gguf.GGUFValueType.ARRAY, inner
    return (kinds[type(value)],)


def llama() -> Any:
    model = tiny_model("llama", vocab_size=262)
    model.config.rms_norm_eps = 2.0**-20
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 2.0**-20
    return model


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINIGPT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(3, 60)[None]).logits


def test_conversion_reproduces_the_model(home: Path, tmp_path: Path) -> None:
    model = llama()
    converted = parent(str(write_gguf(tmp_path / "tiny.gguf", model, metadata())))
    torch.testing.assert_close(logits(load_model(converted.path)), logits(model), rtol=0, atol=1e-6)
    assert converted.precision == "float32"
    again = AutoModelForCausalLM.from_pretrained(converted.path)
    assert again.config.tie_word_embeddings
    assert (again.config.bos_token_id, again.config.eos_token_id, again.config.pad_token_id) == (1, 2, 2)
    assert (again.generation_config.bos_token_id, again.generation_config.eos_token_id) == (1, 2)
    assert not hasattr(again.config, "quantization_config")


def test_conversion_draws_nothing(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Bars are the command line's business; a library that draws its own spoils `--json` and logs."""
    parent(str(write_gguf(tmp_path / "tiny.gguf", llama(), metadata())))
    out, err = capfd.readouterr()
    assert "it/s" not in out + err
    assert "Converting" not in out + err


def test_quantized_weights_are_kept_exactly(home: Path, tmp_path: Path) -> None:
    """Storage loses nothing: the folder holds the very numbers that the `gguf` package dequantizes."""
    kind = gguf.GGMLQuantizationType.Q4_1
    model = llama()
    converted = parent(str(write_gguf(tmp_path / "tiny.gguf", model, metadata(), kind)))
    original = model.model.layers[0].mlp.up_proj.weight.detach().numpy()
    expected = gguf.quants.dequantize(gguf.quants.quantize(original, kind), kind)
    assert converted.precision == "Q4_1 dequantized"
    np.testing.assert_array_equal(
        load_model(converted.path).model.layers[0].mlp.up_proj.weight.detach().numpy(), expected
    )
    assert np.abs(expected - original).max() > 0


def test_the_same_content_is_converted_once_other_content_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", llama(), metadata())
    first = convert_gguf(path)
    monkeypatch.setattr("minigpt.assets.gguf._load", None)
    assert convert_gguf(path) == first
    record = conversion_record(first)
    assert record is not None
    assert record["file"] == "tiny.gguf"
    path.write_bytes(path.read_bytes() + b"changed")
    with pytest.raises(TypeError):
        convert_gguf(path)


def test_a_failed_conversion_leaves_no_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", llama(), metadata())
    monkeypatch.setattr("minigpt.assets.gguf.lossless_dtype", lambda _state: torch.bfloat16)
    with pytest.raises(AssetError, match="changed the logits"):
        convert_gguf(path)
    assert [entry.name for entry in (home / "parents").iterdir() if entry.is_dir()] == []


@pytest.mark.parametrize(
    ("tensor", "dtype"),
    [
        (torch.tensor([1.0, 1.5, 2.0**100]), torch.bfloat16),
        (torch.tensor([1.0, 1.0 + 2.0**-10]), torch.float16),
        (torch.tensor([1.0, 1.0 + 2.0**-20]), torch.float32),
        (torch.tensor([1.0 + 2.0**-10, 2.0**100]), torch.float32),
    ],
)
def test_the_narrowest_exact_type(tensor: torch.Tensor, dtype: torch.dtype) -> None:
    assert lossless_dtype({"weight": tensor}) == dtype


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["In", "Ġ", "20", "20", "1", "Ġt"]),
        ("smollm", ["In", "Ġ", "2", "0", "2", "0", "1", "Ġt"]),
        ("llama-bpe", ["In", "Ġ", "20", "2", "0", "1", "Ġt"]),
        ("qwen2", ["In", "Ġ", "2", "0", "2", "0", "1", "Ġt"]),
    ],
)
def test_digits_are_split_as_the_file_says(pre: str, pieces: list[str]) -> None:
    tokenizer = byte_level_tokenizer(metadata(pre))
    assert tokenizer.tokenize("In 20201 t")[2:] == pieces[1:]


def test_special_tokens_template_and_added_tokens_are_kept(home: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(parent(str(write_gguf(tmp_path / "tiny.gguf", llama(), metadata()))).path)
    assert tokenizer("<|im_start|>a<think>").input_ids == [1, 3 + 97, 261]
    names = ("bos", "eos", "unk", "pad")
    assert [getattr(tokenizer, f"{name}_token_id") for name in names] == [1, 2, 0, 2]
    assert tokenizer.decode([1, 3 + 97, 261], skip_special_tokens=True) == "a<think>"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert chat == "<|im_start|>a<|im_end|>"
    assert tokenizer.model_max_length == 256


def test_bos_is_added_only_if_the_file_asks() -> None:
    assert byte_level_tokenizer(metadata()).encode("a") == [100]
    with_bos = byte_level_tokenizer(metadata(**{"tokenizer.ggml.add_bos_token": True}))
    assert with_bos.encode("a") == [1, 100]
    flags = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    both = byte_level_tokenizer(metadata(**flags))
    assert both.encode("a") == [1, 100, 2]
    assert both.encode("a", add_special_tokens=False) == [100]


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe"])
@settings(max_examples=40, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_round_trips(pre: str, text: str) -> None:
    tokenizer = byte_level_tokenizer(metadata(pre))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("pre", [None, "deepseek-coder"])
def test_an_unknown_pre_tokenizer_is_refused(pre: str | None) -> None:
    with pytest.raises(AssetError, match="cannot be rebuilt exactly"):
        byte_level_tokenizer(metadata(pre))


def test_what_cannot_be_converted_is_refused_clearly(home: Path, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("not a model at all, but long enough to be read")
    with pytest.raises(AssetError, match="not a complete GGUF file"):
        parent(str(tmp_path / "text.gguf"))
    whole = write_gguf(tmp_path / "tiny.gguf", llama(), metadata()).read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AssetError, match="not a complete GGUF file"):
        parent(str(tmp_path / "cut.gguf"))
    unknown = write_gguf(tmp_path / "odd.gguf", llama(), metadata(**{"general.architecture": "marvin"}))
    with pytest.raises(AssetError, match="marvin"):
        parent(str(unknown))


@pytest.mark.slow
def test_the_default_parent_through_the_package_index() -> None:
    """Ids, greedy text and loss of the plain folder equal those of the file read by transformers."""
    from tests.support.tiny import SENTENCES

    converted = parent(DEFAULT_BASE)
    model, tokenizer = load_model(converted.path), load_tokenizer(converted.path)
    assert converted.precision == "Q4_1 dequantized"
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    golden = {
        "\n\n2020": ["ĊĊ", "2", "0", "2", "0"],
        "a  12": ["a", "ĠĠ", "1", "2"],
        "In 1999 he": ["In", "Ġ", "1", "9", "9", "9", "Ġhe"],
    }
    assert {text: tokenizer.tokenize(text) for text in golden} == golden
    source = resolve(DEFAULT_BASE)
    before = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    for text in SENTENCES:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            torch.testing.assert_close(model(ids, labels=ids).loss, before(ids, labels=ids).loss, rtol=0, atol=0)
    ids = tokenizer("The patient has fever and", return_tensors="pt").input_ids
    options = {"max_new_tokens": 12, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), before.generate(ids, **options))
