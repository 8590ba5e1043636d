"""Table of the decoder families: module paths, coupled weights, and what the configs of a family allow.

A family is one row of `ARCHITECTURES`. The code that reads the table knows no family by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

# Numbers of heads that stock transformers loads for a family; see `ArchSpec.head_rule`.
HeadRule = Literal["none", "divides", "any"]
# Order of the rows of a fused projection; see `FusedProjection.layout`.
Layout = Literal["even", "heads", "by_head"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedProjection:
    """One stored matrix that holds several projections, or one projection the other way round.

    Attributes:
        path: the stored module inside of a layer. Its parts have the paths `path.part`.
        parts: names of the projections in it, in order; none if the matrix is one projection, under its own path.
        layout: "even" (the parts have the same number of rows, one part after the other), "heads" (the rows of all
            query heads, then those of all key heads, then those of all value heads) or "by_head" (head by head, and in
            each head one part after the other).
        transposed: whether the matrix is stored as [inputs, outputs], as GPT-2's `Conv1D` does.
    """

    path: str
    parts: tuple[str, ...] = ()
    layout: Layout = "even"
    transposed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchSpec:
    """Description of a decoder family: module paths in a layer, their coupling, and what the family's config allows.

    Norms on queries and keys that work on one head stay as they are. A bias is True, False or the name of the config
    field that switches it.

    Attributes:
        name: the `model_type` of the family's configs.
        layers: path of the list of decoder layers in the model. All other paths are inside of a layer.
        ffn_rows: projections into the FFN, the gate first; row i belongs to neuron i.
        ffn_columns: projection out of the FFN; column i belongs to neuron i.
        ffn_activation: activation function of the FFN.
        ffn: module whose output the layer takes from the FFN; an empty string means the one that holds `ffn_columns`.
        query: query projection; its rows belong to the query heads of KV groups.
        key_value: key and value projections; their rows belong to KV groups.
        output: output projection of attention; its columns belong to the query heads of KV groups.
        fused: stored matrices that hold several of these projections.
        head_rule: numbers of heads that stock transformers loads: "none" (the head size is the hidden size over the
            heads and cannot be set, or a norm runs over all heads), "divides" (the number of query heads must divide
            the hidden size) or "any".
        norms: norms of hidden size in front of a layer's projections.
        norms_after: norms of hidden size behind a layer's attention and FFN.
        norm_bias: whether these norms and the final one have a bias.
        query_key_norms: norms of head size in a layer.
        wide_norms: whether queries and keys have a norm over all heads together.
        query_bias: bias of the query, key and value projections.
        output_bias: bias of the output projection.
        ffn_bias: bias of the FFN's projections.
        head_bias: bias of the language-model head.
        positions: rows of the table of learned positions beyond the longest context; None if there is no such table.
        residual_scale: config field with the factor on everything that a layer adds to the stream.
        rotates: whether a rotation of the residual stream can be moved into the weights (SliceGPT): RMS norms stand in
            front of attention and FFN, which follow one another.
        width: config field with the number of neurons of a layer.
        groups: config field with the number of KV groups.
        per_layer: config fields that are lists with one entry a layer.
        requires: values that config fields must have for this description to hold; a string names another field.
    """

    name: str
    layers: str = "model.layers"
    ffn_rows: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    ffn_columns: str = "mlp.down_proj"
    ffn_activation: str = "mlp.act_fn"
    ffn: str = ""
    query: str = "self_attn.q_proj"
    key_value: tuple[str, ...] = ("self_attn.k_proj", "self_attn.v_proj")
    output: str = "self_attn.o_proj"
    fused: tuple[FusedProjection, ...] = ()
    head_rule: HeadRule = "any"
    norms: int = 2
    norms_after: int = 0
    norm_bias: bool = False
    query_key_norms: int = 0
    wide_norms: bool = False
    query_bias: bool | str = "attention_bias"
    output_bias: bool | str = "attention_bias"
    ffn_bias: bool | str = False
    head_bias: bool = False
    positions: int | None = None
    residual_scale: str = ""
    rotates: bool = False
    width: str = "intermediate_size"
    groups: str = "num_key_value_heads"
    per_layer: tuple[str, ...] = ()
    requires: Mapping[str, bool | str] = field(default_factory=dict)

    @property
    def ffn_module(self) -> str:
        """Path of the module whose output the layer takes from the FFN."""
        return self.ffn or self.ffn_columns.rpartition(".")[0]

    @property
    def ffn_outside(self) -> tuple[str, ...]:
        """Paths of the projections into the FFN that are not inside of `ffn_module`."""
        return tuple(path for path in self.ffn_rows if not path.startswith(f"{self.ffn_module}."))

    @property
    def attention_module(self) -> str:
        """Path of the module that holds attention."""
        return self.output.rpartition(".")[0]

    def stored(self, path: str) -> str:
        """Return the path of the stored module that holds a projection."""
        return next((fused.path for fused in self.fused if path.startswith(f"{fused.path}.")), path)

    def is_transposed(self, path: str) -> bool:
        """Return whether a projection is stored as [inputs, outputs]."""
        return any(fused.transposed and fused.path == self.stored(path) for fused in self.fused)


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
    )
}

_EXPERTS = "layers of experts are not described yet"
_STATE = "a state that runs from token to token would mix the documents of a packed window"
_TOWERS = "the checkpoint holds a vision part; give its language model alone, as"

# Well-known types that are not in the table, and why.
UNDESCRIBED: Mapping[str, str] = {
    "baichuan": "transformers has no stock classes for it, and code from a model's folder is never run",
    "bert": "an encoder does not continue text; only its feed-forward layers can be made conditional",
    "falcon_h1": _STATE,
    "gemma3": f"{_TOWERS} type gemma3_text",
    "gemma4_text": "its layers have heads of two sizes, which are not described yet",
    "gpt_oss": _EXPERTS,
    "granitemoe": _EXPERTS,
    "lfm2": "its layers of convolutions are not described yet",
    "mamba": _STATE,
    "mamba2": _STATE,
    "mixtral": _EXPERTS,
    "olmoe": _EXPERTS,
    "qwen2_5_vl": f"{_TOWERS} type qwen2",
    "qwen2_moe": _EXPERTS,
    "qwen3_5_text": f"three of four layers are linear attention, and {_STATE}",
    "qwen3_moe": _EXPERTS,
    "qwen3_next": f"its layers are experts and linear attention, and {_STATE}",
    "qwen3_vl": f"{_TOWERS} type qwen3",
    "rwkv": _STATE,
}
