"""Table of the decoder families: module paths, coupled weights, and what the configs of a family allow.

A family is one row of `ARCHITECTURES`. The code that reads the table knows no family by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from minigpt.transformer.specs import ArchSpec, ExpertSpec, FusedProjection, StateSpec

__all__ = ["ARCHITECTURES", "UNDESCRIBED", "ArchSpec", "ExpertSpec", "FusedProjection"]

_LLAMA = ArchSpec(name="llama", head_rule="divides", ffn_bias="mlp_bias", rotates=True)
_PLAIN = ArchSpec(name="plain", rotates=True)
_TYPED = replace(_PLAIN, per_layer=("layer_types",))
_GEMMA2 = replace(_TYPED, name="gemma2", head_rule="divides", norms_after=2, rotates=False)
_SMOLLM3 = replace(_LLAMA, name="smollm3", head_rule="any", per_layer=("layer_types", "no_rope_layers"))
_OLMO2 = replace(_PLAIN, name="olmo2", head_rule="none", norms=0, norms_after=2, wide_norms=True, rotates=False)
_GATE_UP = FusedProjection(path="mlp.gate_up_proj", parts=("gate", "up"))
_FUSED_FFN = ("mlp.gate_up_proj.gate", "mlp.gate_up_proj.up")
_STABLELM = replace(
    _PLAIN,
    name="stablelm",
    head_rule="none",
    norm_bias=True,
    query_bias="use_qkv_bias",
    output_bias=False,
    rotates=False,
    requires={"use_parallel_residual": False, "qk_layernorm": False},
)
_STARCODER2 = replace(
    _PLAIN,
    name="starcoder2",
    ffn_rows=("mlp.c_fc",),
    ffn_columns="mlp.c_proj",
    ffn_activation="mlp.act",
    norm_bias=True,
    query_bias="use_bias",
    output_bias="use_bias",
    ffn_bias="use_bias",
    rotates=False,
)
_PHI = ArchSpec(
    name="phi",
    ffn_rows=("mlp.fc1",),
    ffn_columns="mlp.fc2",
    ffn_activation="mlp.activation_fn",
    output="self_attn.dense",
    norms=1,
    norm_bias=True,
    query_bias=True,
    output_bias=True,
    ffn_bias=True,
    head_bias=True,
    requires={"qk_layernorm": False},
)
_PHI3 = replace(
    _PLAIN,
    name="phi3",
    ffn_rows=_FUSED_FFN,
    ffn_activation="mlp.activation_fn",
    query="self_attn.qkv_proj.query",
    key_value=("self_attn.qkv_proj.key", "self_attn.qkv_proj.value"),
    fused=(
        FusedProjection(path="self_attn.qkv_proj", parts=("query", "key", "value"), layout="heads"),
        _GATE_UP,
    ),
    query_bias=False,
    output_bias=False,
    rotates=False,
)
_GLM4 = replace(
    _PLAIN,
    name="glm4",
    ffn_rows=_FUSED_FFN,
    ffn_activation="mlp.activation_fn",
    fused=(_GATE_UP,),
    norms_after=2,
    output_bias=False,
    rotates=False,
)
# The FFN has no module of its own in a layer: `fc2` gives what the layer adds.
_OPT = ArchSpec(
    name="opt",
    layers="model.decoder.layers",
    ffn_rows=("fc1",),
    ffn_columns="fc2",
    ffn_activation="activation_fn",
    ffn="fc2",
    output="self_attn.out_proj",
    head_rule="none",
    norm_bias=True,
    query_bias="enable_bias",
    output_bias="enable_bias",
    ffn_bias="enable_bias",
    positions=2,
    width="ffn_dim",
    groups="num_attention_heads",
    requires={
        "do_layer_norm_before": True,
        "word_embed_proj_dim": "hidden_size",
        "layer_norm_elementwise_affine": True,
        "_remove_final_layer_norm": False,
    },
)
_GPT2 = ArchSpec(
    name="gpt2",
    layers="transformer.h",
    ffn_rows=("mlp.c_fc",),
    ffn_columns="mlp.c_proj",
    ffn_activation="mlp.act",
    query="attn.c_attn.query",
    key_value=("attn.c_attn.key", "attn.c_attn.value"),
    output="attn.c_proj",
    fused=(
        FusedProjection(path="attn.c_attn", parts=("query", "key", "value"), transposed=True),
        FusedProjection(path="attn.c_proj", transposed=True),
        FusedProjection(path="mlp.c_fc", transposed=True),
        FusedProjection(path="mlp.c_proj", transposed=True),
    ),
    head_rule="none",
    norm_bias=True,
    query_bias=True,
    output_bias=True,
    ffn_bias=True,
    positions=0,
    width="n_inner",
    groups="num_attention_heads",
    requires={"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
)
_GPT_NEOX = ArchSpec(
    name="gpt_neox",
    layers="gpt_neox.layers",
    ffn_rows=("mlp.dense_h_to_4h",),
    ffn_columns="mlp.dense_4h_to_h",
    ffn_activation="mlp.act",
    query="attention.query_key_value.query",
    key_value=("attention.query_key_value.key", "attention.query_key_value.value"),
    output="attention.dense",
    fused=(FusedProjection(path="attention.query_key_value", parts=("query", "key", "value"), layout="by_head"),),
    head_rule="none",
    norm_bias=True,
    ffn_bias=True,
    groups="num_attention_heads",
)
_MIXTRAL = replace(_PLAIN, name="mixtral", query_bias=False, output_bias=False, rotates=False, experts=ExpertSpec())
_GRANITEMOE = replace(
    _LLAMA,
    name="granitemoe",
    head_rule="any",
    ffn_bias=False,
    residual_scale="residual_multiplier",
    rotates=False,
    experts=ExpertSpec(block="block_sparse_moe", router="block_sparse_moe.router", experts="block_sparse_moe.experts"),
)
_GPT_OSS = replace(
    _TYPED,
    name="gpt_oss",
    rotates=False,
    per_head=("self_attn.sinks",),
    experts=ExpertSpec(router="mlp.router", bias=True, gives_routing=True, alternating=True),
)

# Layers of these families carry a state; neurons of RWKV's channel mixing share the token before and stay.
_MAMBA2 = ArchSpec(
    name="mamba2",
    layers="backbone.layers",
    ffn_rows=(),
    ffn_columns="",
    norms=1,
    head_rule="none",
    state=StateSpec(mixer="mamba2", cache="cache_params", in_kernels=("out_proj",)),
)
_MAMBA = replace(
    _MAMBA2,
    name="mamba",
    state=StateSpec(mixer="mamba", cache="cache_params", bare=("dt_proj",), in_kernels=("x_proj", "out_proj")),
)
_RWKV = replace(
    _MAMBA2,
    name="rwkv",
    layers="rwkv.blocks",
    norms=2,
    norm_bias=True,
    state=StateSpec(mixer="rwkv", cache="state", first=1, outputs=3, batches=False),
    requires={"rescale_every": 0, "attention_hidden_size": "hidden_size"},
    indifferent=("rescale_every",),
)
_LFM2 = ArchSpec(
    name="lfm2",
    ffn_rows=("feed_forward.w1", "feed_forward.w3"),
    ffn_columns="feed_forward.w2",
    ffn_activation="",
    head_rule="none",
    width_adjusted="block_auto_adjust_ff_dim",
    per_layer=("layer_types",),
    numbered=("full_attn_idxs",),
    state=StateSpec(mixer="short convolution", kind="conv", attention="attention"),
)
_QWEN3_5 = replace(
    _TYPED,
    name="qwen3_5_text",
    head_rule="none",
    rotates=False,
    state=StateSpec(mixer="gated delta", kind="linear_attention", attention="gated attention"),
    requires={"attention_bias": False},
)

# Description of each supported family, by `model_type`.
ARCHITECTURES: Mapping[str, ArchSpec] = {
    spec.name: spec
    for spec in (
        _LLAMA,
        replace(_PLAIN, name="mistral", query_bias=False, output_bias=False),
        replace(_TYPED, name="qwen2", query_bias=True, output_bias=False),
        replace(_TYPED, name="qwen3", query_key_norms=2),
        replace(_PLAIN, name="gemma"),
        _GEMMA2,
        replace(_GEMMA2, name="gemma3_text", query_key_norms=2),
        _SMOLLM3,
        replace(_LLAMA, name="granite", head_rule="any", residual_scale="residual_multiplier", rotates=False),
        replace(_TYPED, name="ministral", query_bias=False, output_bias=False),
        _OLMO2,
        replace(_OLMO2, name="olmo3", per_layer=("layer_types",)),
        replace(
            _TYPED,
            name="exaone4",
            norms=0,
            norms_after=2,
            query_key_norms=2,
            query_bias=False,
            output_bias=False,
            rotates=False,
        ),
        replace(_TYPED, name="cohere2", norms=1, rotates=False),
        _STABLELM,
        _STARCODER2,
        _GLM4,
        _PHI,
        _PHI3,
        _OPT,
        _GPT2,
        _GPT_NEOX,
        _MIXTRAL,
        replace(
            _MIXTRAL,
            name="qwen3_moe",
            query_key_norms=2,
            query_bias="attention_bias",
            output_bias="attention_bias",
            width="moe_intermediate_size",
            requires={"mlp_only_layers": [], "decoder_sparse_step": 1},
        ),
        replace(
            _MIXTRAL,
            name="olmoe",
            head_rule="none",
            wide_norms=True,
            query_bias="attention_bias",
            output_bias="attention_bias",
            experts=ExpertSpec(count="num_experts"),
        ),
        _GRANITEMOE,
        _GPT_OSS,
        replace(
            _MIXTRAL,
            name="qwen2_moe",
            query_bias="qkv_bias",
            width="moe_intermediate_size",
            per_layer=("layer_types",),
            requires={"mlp_only_layers": [], "decoder_sparse_step": 1},
            experts=ExpertSpec(count="num_experts", shared="shared_expert_intermediate_size"),
        ),
        _MAMBA2,
        _MAMBA,
        replace(_MAMBA, name="falcon_mamba"),
        _RWKV,
        _LFM2,
        _QWEN3_5,
    )
}

_SHARED = "its shared experts are stored in a form that is not described yet"
_STATE = "a state that runs from token to token would mix the documents of a packed window"
_REMOTE = "transformers has no stock classes for it, and code from a model's folder is never run"
_ENCODER = (
    "an encoder does not continue text, by which plans, healing and scores are made; its feed-forward layers can be "
    "made conditional from Python (docs/guide/conditional.md, Encoders)"
)
_TOWERS = "the checkpoint holds a vision part; give its folder as --base, and its language model alone is read, as"

# Well-known types that are not in the table, and why.
UNDESCRIBED: Mapping[str, str] = {
    "baichuan": _REMOTE,
    "bert": _ENCODER,
    "falcon_h1": _STATE,
    "gemma3": f"{_TOWERS} type gemma3_text",
    "gemma4_text": "its layers have heads of two sizes, which are not described yet",
    "granitemoeshared": _SHARED,
    "qwen2_5_vl": f"{_TOWERS} type qwen2",
    "qwen": _REMOTE,
    "qwen3_next": f"its layers are experts and linear attention, and {_STATE}",
    "qwen3_vl": f"{_TOWERS} type qwen3",
    "roberta": _ENCODER,
}
