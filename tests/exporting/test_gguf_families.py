"""Every family of llama.cpp's table: names, layout and numbers of the file, and refusals of what is not computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import MODEL_ARCH_NAMES, MODEL_TENSORS, TENSOR_NAMES, GGUFReader

from minigpt.errors import ExportError
from minigpt.exporting.gguf import bytes_per_token
from minigpt.exporting.gguf_arch import family_of
from minigpt.exporting.gguf_families import FAMILIES
from minigpt.exporting.gguf_write import write_gguf
from minigpt.transformer.arch import has_attention
from minigpt.transformer.families import ARCHITECTURES
from tests.support.tiny import UNUSUAL, tiny_config, tiny_model, tiny_tokenizer

FULL = ["full_attention", "full_attention"]
# Fields for variants that llama.cpp computes, where those of the tiny models are others.
FIELDS: dict[str, dict[str, Any]] = {
    "gemma2": {"query_pre_attn_scalar": 8, "sliding_window": 64},
    "exaone4": {"sliding_window": None, "sliding_window_pattern": 4, "layer_types": FULL},
    "olmoe": {"num_key_value_heads": 4},
}


def set_fields(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """Let the tiny model of a family be a variant that llama.cpp computes."""
    monkeypatch.setitem(UNUSUAL, family, UNUSUAL.get(family, {}) | FIELDS.get(family, {}))


def written(path: Path, family: str, **options: Any) -> tuple[Any, dict[str, np.ndarray], Any]:
    """Write a tiny model in fp32; returns the model, the tensors of the file, and its fields."""
    model = tiny_model(family, **options)
    write_gguf(model, tiny_tokenizer(), path, kind="F32", name="tiny")
    reader = GGUFReader(path)
    shaped = {tensor.name: tensor.data.reshape(tensor.shape[::-1]) for tensor in reader.tensors}
    return model, shaped, {name.partition(".")[2]: field.contents() for name, field in reader.fields.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_files_hold_all_weights_under_names_of_the_family(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each number of the model is in the file once, a tied head twice where llama.cpp wants one, by known names."""
    set_fields(monkeypatch, family)
    model, tensors, fields = written(tmp_path / "m.gguf", family, layers=2)
    row = FAMILIES[family]
    head = tensors["output.weight"].size if row.own_head else 0
    assert sum(value.size for value in tensors.values()) - head == sum(p.numel() for p in model.parameters())
    arch = next(key for key, value in MODEL_ARCH_NAMES.items() if value == row.arch)
    known = {TENSOR_NAMES[tensor] for tensor in MODEL_TENSORS[arch]}
    bare = [name.removesuffix(".weight").removesuffix(".bias") for name in tensors]
    assert all(name.replace(".1.", ".{bid}.").replace(".0.", ".{bid}.") in known for name in bare)
    assert fields["block_count"] == 2 and fields["attention.head_count"] == (4 if has_attention(model.config) else 0)
    written_in = "layer_norm_epsilon" if row.layer_norms else "layer_norm_rms_epsilon"
    assert fields[f"attention.{written_in}"] == pytest.approx(getattr(model.config, row.epsilon))


@pytest.mark.parametrize("family", sorted(set(ARCHITECTURES) - set(FAMILIES)))
def test_families_without_a_row_are_refused_by_name(family: str) -> None:
    """llama.cpp has no OPT, and of RWKV only later kinds."""
    with pytest.raises(ExportError, match=f"'{family}' have no GGUF writer"):
        family_of(tiny_config(family))


@pytest.mark.parametrize("family", ["mixtral", "granitemoe", "gpt_oss"])
def test_stacked_experts_are_taken_apart(family: str, tmp_path: Path) -> None:
    """Gate and up are halves of the stored rows, or every other column of gpt-oss's; routers stay fp32."""
    model, tensors, fields = written(tmp_path / "m.gguf", family, layers=1)
    values = {name.rpartition(".")[2]: value.detach().numpy() for name, value in model.named_parameters()}
    stored, down = values["gate_up_proj"], values["down_proj"]
    for expert in range(4):
        gate, up = (tensors[f"blk.0.ffn_{name}_exps.weight"][expert] for name in ("gate", "up"))
        for neuron in (0, 5, 63):
            if family == "gpt_oss":
                pair = stored[expert][:, 2 * neuron], stored[expert][:, 2 * neuron + 1]
            else:
                pair = stored[expert][neuron], stored[expert][64 + neuron]
            assert np.array_equal(gate[neuron], pair[0]) and np.array_equal(up[neuron], pair[1])
        wanted = down[expert].T if family == "gpt_oss" else down[expert]
        assert np.array_equal(tensors["blk.0.ffn_down_exps.weight"][expert], wanted)
    assert fields["expert_count"] == 4 and fields["expert_used_count"] == 2
    write_gguf(model, tiny_tokenizer(), tmp_path / "half.gguf", kind="F16", name="tiny")
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "half.gguf").tensors}
    assert types["blk.0.ffn_gate_inp.weight"] == "F32" and types["blk.0.ffn_up_exps.weight"] == "F16"


def test_only_the_experts_of_a_token_are_read(tmp_path: Path) -> None:
    """Two of four experts: half of their bytes count for decoding."""
    _, tensors, _ = written(tmp_path / "m.gguf", "mixtral", layers=1)
    experts = sum(value.nbytes for name, value in tensors.items() if "_exps" in name)
    rest = sum(value.nbytes for name, value in tensors.items() if "_exps" not in name)
    assert bytes_per_token(tmp_path / "m.gguf") == rest + experts // 2


def test_fused_matrices_have_the_order_of_llama_cpp(tmp_path: Path) -> None:
    """GPT-NeoX holds query, key and value of one head after the other; GPT-2 stores inputs by outputs."""
    model, tensors, _ = written(tmp_path / "n.gguf", "gpt_neox", layers=1)
    stored = model.gpt_neox.layers[0].attention.query_key_value.weight.detach().numpy()
    for part in range(3):
        for head in range(4):
            rows = tensors["blk.0.attn_qkv.weight"][part * 32 + head * 8 : part * 32 + head * 8 + 8]
            assert np.array_equal(rows, stored[(head * 3 + part) * 8 : (head * 3 + part) * 8 + 8])
    model, tensors, _ = written(tmp_path / "g.gguf", "gpt2", layers=1)
    assert np.array_equal(tensors["blk.0.ffn_up.weight"], model.transformer.h[0].mlp.c_fc.weight.detach().numpy().T)


@pytest.mark.parametrize(
    ("family", "fields", "said"),
    [
        ("exaone4", {}, "sliding attention"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 4}, "sliding attention"),
        ("exaone4", {"layer_types": FULL * 32, "num_hidden_layers": 64}, "64 layers without windows"),
        ("cohere2", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ("olmoe", {}, "num_key_value_heads=2"),
        ("qwen3_moe", {"norm_topk_prob": False}, "norm_topk_prob=False"),
        ("qwen2_moe", {"norm_topk_prob": True}, "norm_topk_prob=True"),
        ("starcoder2", {"num_attention_heads": 2, "head_dim": 8}, "heads were cut"),
        ("phi", {"hidden_act": "relu"}, "activation 'relu'"),
        ("mamba", {"intermediate_size": 128}, "intermediate_size=128"),
        ("falcon_mamba", {"use_conv_bias": False}, "use_conv_bias=False"),
        ("mamba2", {"time_step_limit": [0.0, 0.1]}, "time_step_limit"),
        ("lfm2", {"conv_bias": True}, "conv_bias=True"),
        ("qwen3_5_text", {"linear_key_head_dim": 4}, "linear_value_head_dim=8"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(family: str, fields: dict[str, object], said: str) -> None:
    config = tiny_config(family)
    for name, value in fields.items():
        setattr(config, name, value)
    with pytest.raises(ExportError, match=f"llama.cpp does not compute .*{said}"):
        family_of(config)


@pytest.mark.parametrize(
    ("yarn", "said"),
    [
        ({"attention_factor": 1.0}, "temperature"),
        ({"truncate": False}, "not rounded"),
        ({"mscale": 0.7}, "temperature"),
    ],
)
def test_yarn_of_another_kind_is_refused(
    yarn: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
    model = tiny_model("qwen3", layers=1)
    monkeypatch.setattr(model.config, "rope_parameters", base | yarn)
    with pytest.raises(ExportError, match=said):
        write_gguf(model, tiny_tokenizer(), tmp_path / "m.gguf", kind="F32", name="tiny")
    assert not (tmp_path / "m.gguf").exists()
