"""GGUF files: read back by transformers, by our own reader and, where it is installed, by llama.cpp."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from tokenizers import Regex, pre_tokenizers

from minigpt import runtimes
from minigpt.assets.gguf import READ_BACK, read_gguf, read_metadata
from minigpt.assets.gguf_tokenizer import PRE_TOKENIZERS, byte_level_tokenizer
from minigpt.errors import AssetError, ExportError
from minigpt.exporting import export, request
from minigpt.exporting.gguf import bytes_per_token
from minigpt.exporting.gguf_arch import rope_factors
from minigpt.exporting.gguf_families import FAMILIES
from minigpt.exporting.gguf_vocab import pre_tokenizer_name, vocabulary_of
from minigpt.exporting.gguf_write import q4_0_bytes, write_gguf
from minigpt.exporting.rounding import round_compensated, round_nearest
from minigpt.models.push import pack
from minigpt.runtimes.gguf import LlamaRuntime, load
from minigpt.runtimes.pytorch import TorchRuntime
from tests.support.exports import make_shop
from tests.support.tiny import tiny_config, tiny_model, tiny_tokenizer

TEXT = "The heart pumps 1999 times.\n\n  Naïve café, 東京 🙂 and\ttabs \x04 <|im_end|>"


def vary(model: Any) -> Any:
    """Give norms and biases values that show in the logits."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[str]:
    """Let a function of a module note each of its calls in a list."""
    calls: list[str] = []
    original = getattr(module, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, counted)
    return calls


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in GGUFReader(path).tensors}


def kinds(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


@pytest.mark.parametrize("family", READ_BACK)
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_the_same_model(family: str, tied: bool, tmp_path: Path):
    model = vary(tiny_model(family, layers=2, tied=tied))
    write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", kind="F32", name="tiny")
    again = read_gguf(tmp_path / "m.gguf")
    ids = torch.tensor([tiny_tokenizer()(TEXT)["input_ids"]])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, again(ids).logits)
    own_head = not tied or FAMILIES[family].own_head
    assert ("output.weight" in kinds(tmp_path / "m.gguf")) is own_head
    assert again.config.num_key_value_heads == 2 and again.config.max_position_embeddings == 256


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_our_reader_gives_the_same_tokenizer(pre: str, tmp_path: Path):
    tokenizer = spelled(pre)
    write_gguf(tiny_model(layers=1, vocab_size=576), tokenizer, tmp_path / "m.gguf", kind="F16", name="tiny")
    metadata, _ = read_metadata(tmp_path / "m.gguf")
    again = byte_level_tokenizer(metadata)
    assert metadata["tokenizer.ggml.pre"] == pre
    assert again(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    assert again.chat_template == tokenizer.chat_template
    assert (again.bos_token, again.eos_token, again.pad_token) == ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    assert metadata["tokenizer.ggml.tokens"][575] == "[PAD575]"
    assert metadata["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1] and metadata["tokenizer.ggml.token_type"][575] == 5


def spelled(pre: str) -> Any:
    """The tiny tokenizer with another pre-tokenizer."""
    import copy
    import json

    from tokenizers import Tokenizer, normalizers
    from transformers import PreTrainedTokenizerFast

    base = tiny_tokenizer()
    document = json.loads(base.backend_tokenizer.to_str())
    document["model"]["ignore_merges"] = pre == "llama-bpe"
    backend = Tokenizer.from_str(json.dumps(document))
    backend.pre_tokenizer = PRE_TOKENIZERS[pre]()
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    names = copy.copy(base.special_tokens_map)
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=base.chat_template, **names)


def test_an_unknown_pre_tokenizer_is_refused():
    tokenizer = spelled("gpt-2")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+"), behavior="isolated")
    with pytest.raises(ExportError, match="splits or normalizes text by a rule"):
        vocabulary_of(tokenizer, 512)


def test_names_tell_apart_what_only_the_normalizer_or_merges_tell_apart():
    import json

    document = json.loads(spelled("qwen2").backend_tokenizer.to_str())
    document["normalizer"] = None
    with pytest.raises(ExportError):
        pre_tokenizer_name(document)


def test_llama_rows_are_permuted_as_llama_cpp_rotates_them(tmp_path: Path):
    model = tiny_model(layers=1)
    write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", kind="F32", name="tiny")
    stored, attention = tensors(tmp_path / "m.gguf"), model.model.layers[0].self_attn
    query, written = attention.q_proj.weight.detach().numpy(), stored["blk.0.attn_q.weight"]
    for head in range(4):
        for pair in range(4):
            for half in range(2):
                assert np.array_equal(written[head * 8 + 2 * pair + half], query[head * 8 + half * 4 + pair])
    assert np.array_equal(stored["blk.0.attn_v.weight"], attention.v_proj.weight.detach().numpy())


def test_precisions_store_matrices_and_keep_vectors(tmp_path: Path):
    model = vary(tiny_model("qwen2", layers=1))
    for kind in ("F16", "Q8_0", "Q4_0"):
        path = tmp_path / f"{kind}.gguf"
        write_gguf(model, tiny_tokenizer(), path, kind=kind, name="tiny", embedding="Q8_0" if kind[0] == "Q" else None)
        stored = kinds(path)
        assert stored["blk.0.ffn_down.weight"] == kind and stored["blk.0.attn_q.weight"] == kind
        assert stored["token_embd.weight"] == ("F16" if kind == "F16" else "Q8_0")
        assert {stored[name] for name in stored if "norm" in name or "bias" in name} == {"F32"}


def test_odd_rows_stay_half_precision(tmp_path: Path):
    from transformers import AutoModelForCausalLM

    config = tiny_config("llama", layers=1)
    config.intermediate_size = 80
    model = AutoModelForCausalLM.from_config(config).eval()
    write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", kind="Q4_0", name="tiny")
    stored = kinds(tmp_path / "m.gguf")
    assert stored["blk.0.ffn_down.weight"] == "F16" and stored["blk.0.ffn_up.weight"] == "Q4_0"


def test_compensated_codes_arrive_in_the_file(tmp_path: Path):
    torch.manual_seed(0)
    model = tiny_model(layers=1)
    inputs = torch.randn(200, 32) @ torch.randn(32, 32)
    name = "model.layers.0.mlp.up_proj.weight"
    gram = inputs.T @ inputs
    weight = model.get_parameter(name).detach()
    rounded = {name: q4_0_bytes(round_compensated(weight, gram))}
    write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", kind="Q4_0", name="tiny", rounded=rounded)
    stored = tensors(tmp_path / "m.gguf")
    assert np.array_equal(stored["blk.0.ffn_up.weight"], round_compensated(weight, gram).values().numpy())
    plain = dict(model.named_parameters())["model.layers.0.mlp.gate_proj.weight"].detach()
    assert np.array_equal(stored["blk.0.ffn_gate.weight"], round_nearest(plain).values().numpy())


def test_block_layout_is_ggmls():
    weight = torch.randn(6, 96)
    rounded = round_nearest(weight)
    assert np.array_equal(dequantize(q4_0_bytes(rounded), GGMLQuantizationType.Q4_0), rounded.values().numpy())


def test_bytes_per_token_leave_out_an_embedding_that_is_only_looked_up(tmp_path: Path):
    for tied in (True, False):
        write_gguf(
            tiny_model(layers=1, tied=tied), tiny_tokenizer(), tmp_path / f"{tied}.gguf", kind="F16", name="tiny"
        )
    layer = 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64) + 4 * 32 * 3
    assert bytes_per_token(tmp_path / "True.gguf") == layer + 2 * 512 * 32
    assert bytes_per_token(tmp_path / "False.gguf") == layer + 2 * 512 * 32 + 2 * 32


@pytest.mark.parametrize(
    ("family", "change", "match"),
    [
        ("llama", {"hidden_act": "gelu"}, "activation 'gelu'"),
        ("gemma3_text", {"query_pre_attn_scalar": 99}, "query scale of 99"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 1]}, "rotary"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "'dynamic'"),
        ("llama", {"model_type": "opt"}, "no GGUF writer"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    family: str, change: dict[str, Any], match: str, tmp_path: Path
):
    model = tiny_model(family)
    model.config.__dict__.update(change)
    with pytest.raises(ExportError, match=match):
        write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", kind="F16", name="tiny")
    assert not (tmp_path / "m.gguf").exists()


def test_a_head_that_the_format_has_no_name_for_is_refused(tmp_path: Path):
    with pytest.raises(ExportError, match=r"no name for the tensor lm_head\.weight"):
        write_gguf(tiny_model("gemma", tied=False), tiny_tokenizer(), tmp_path / "m.gguf", kind="F32", name="tiny")
    assert not list(tmp_path.iterdir())


def test_weights_beyond_half_precision_are_refused(tmp_path: Path):
    model = tiny_model(layers=1)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e5
    with pytest.raises(ExportError, match="too large for F16"):
        write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", kind="F16", name="tiny")


def test_llama3_scaling_is_that_of_transformers():
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = tiny_config("llama")
    assert rope_factors(config) is None
    config.head_dim = 64
    config.rope_parameters = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / 500000.0 ** (torch.arange(0, 64, 2) / 64)
    assert np.allclose(rope_factors(config), plain / scaled, rtol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_without_llama_cpp_an_export_is_verified_through_pytorch(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("minigpt.runtimes.gguf.interpreter", lambda: None)
    reads = count_calls(monkeypatch, request, "build_corpus")
    shop = make_shop(tmp_path)
    record = export(shop.request("gguf", "out", precision=precision))
    assert reads == ["build_corpus"], "calibration and proof share one reading of the text"
    loaded = runtimes.load(tmp_path / "out")
    assert isinstance(loaded, TorchRuntime) and loaded.name == f"gguf {precision}"
    assert all(check.passed for check in record.checks) and record.quality
    if precision == "fp32":
        assert record.greedy and record.greedy.agreeing == 64
    else:
        assert 0 < record.settings["output_error_over_plain_rounding"] < 1
        assert kinds(tmp_path / "out" / "model.gguf")["token_embd.weight"] == "Q8_0"
        assert record.settings["calibration_domain"] == shop.domain
    for file in pack(str(tmp_path / "out"), "acme/out").files:
        data = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        assert file.name.endswith(".gguf") or str(tmp_path).encode() not in data, file.name


def test_families_that_transformers_misreads_need_llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("minigpt.runtimes.gguf.interpreter", lambda: None)
    monkeypatch.setattr("minigpt.runtimes.gguf.read_record", lambda folder: None)
    tiny_config("qwen3").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(AssetError, match=r"need llama\.cpp"):
        load(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("script", "said"), [(None, "cannot be started"), ("echo 'ModuleNotFoundError: llama_cpp' >&2", "ModuleNotFound")]
)
def test_an_interpreter_without_llama_cpp_is_named(script: str | None, said: str, tmp_path: Path):
    python = tmp_path / "python"
    if script:
        python.write_text(f"#!/bin/sh\n{script}\nexit 1\n")
        python.chmod(0o755)
    record: Any = SimpleNamespace(format="gguf", precision="fp16", bytes=1, source=SimpleNamespace(parameters=1))
    with pytest.raises(AssetError, match=f"{python} .*{said}.* MINIGPT_LLAMA_PYTHON"):
        LlamaRuntime(tmp_path / "m.gguf", str(python), tiny_tokenizer(), tiny_config("llama"), record=record)


def test_a_crash_of_llama_cpp_is_an_error(tmp_path: Path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho Illegal instruction >&2\nexit 132\n")
    script.chmod(0o755)
    record: Any = SimpleNamespace(format="gguf", precision="fp16", bytes=1, source=SimpleNamespace(parameters=1))
    with pytest.raises(AssetError, match=r"status 132 .* \(Illegal instruction\)"):
        LlamaRuntime(tmp_path / "m.gguf", str(script), tiny_tokenizer(), tiny_config("llama"), record=record)


def test_further_end_tokens_of_the_generation_config_are_named(tmp_path: Path):
    model, tokenizer = tiny_model(layers=1), tiny_tokenizer()
    further = sorted({5, 6} - {tokenizer.eos_token_id})
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *further]
    write_gguf(model, tokenizer, tmp_path / "m.gguf", kind="F32", name="tiny")
    metadata, _ = read_metadata(tmp_path / "m.gguf")
    names = ("eos", "eot", "eom")
    assert [metadata[f"tokenizer.ggml.{name}_token_id"] for name in names] == [tokenizer.eos_token_id, *further]
