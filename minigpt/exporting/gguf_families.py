"""Table of the decoder families that llama.cpp computes: its name of each, and what it expects of the weights.

llama.cpp has each family's arithmetic written out and reads only numbers from the file (src/models/ of its sources).
What a config asks for beyond that is refused by `gguf_arch` instead of being computed wrongly there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from minigpt.exporting.gguf_states import (
    attention_groups,
    attention_interval,
    inner_size,
    rotary_sections,
    uneven_states,
    value_width,
)

# How llama.cpp treats sliding windows in a family, see `GgufFamily.window`.
Window = Literal["none", "cap", "pattern"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFamily:
    """One family of transformers as llama.cpp computes it.

    Attributes:
        arch: name of the family in the file.
        permuted: whether rotary pairs are neighbors in llama.cpp. In transformers they are half a head apart, so the
            rows of q and k change places.
        norm_offset: number added to norm weights (Gemma's norms scale by 1 + w).
        activations: names of the activation that llama.cpp computes for the family; empty where configs name none.
        window: "none" refuses sliding attention. "cap" has no window and is exact up to its length, so the context
            ends there. "pattern" alternates sliding and full layers.
        period: length of the pattern in layers; the last layer of each period is full.
        windowed_at: number of layers at which llama.cpp turns windows on by itself; 0 if there is none.
        rope_step: every layer whose number is a multiple of this has no rotary embedding; 0 means all layers have one.
        epsilon: config field with the small number of the norms.
        layer_norms: whether norms subtract the mean.
        is_square: whether heads must be as wide as the stream, which cut heads are not.
        own_head: whether the head is written even where it is the embedding.
        numbers: config fields, or functions of a config, by the method of `GGUFWriter` that writes them; they come in
            place of what other families write by the same method.
        requires: values that config fields must have, as llama.cpp has them written out; a string names another field,
            and a function of a config computes the value.
        renames: parts of names of tensors in transformers, and what `gguf` calls them.
        upright: parameters of a layer that have a row for each of their numbers.
        plain_norms: part of the names of norms that have no offset; empty if all have it.
        flags: functions of a config by keys that `GGUFWriter` has no method for; None leaves a key out.
    """

    arch: str
    permuted: bool = False
    norm_offset: float = 0.0
    activations: tuple[str, ...] = ("silu",)
    window: Window = "none"
    period: int = 0
    windowed_at: int = 0
    rope_step: int = 0
    epsilon: str = "rms_norm_eps"
    layer_norms: bool = False
    is_square: bool = False
    own_head: bool = False
    numbers: Mapping[str, str | Callable[[Any], Any]] = field(default_factory=dict)
    requires: Mapping[str, object] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)
    upright: tuple[str, ...] = ()
    plain_norms: str = ""
    flags: Mapping[str, Callable[[Any], list[bool] | None]] = field(default_factory=dict)


def _zero(_config: Any) -> int:
    """Write a zero, by which llama.cpp knows that a family has nothing of the kind."""
    return 0


def _twice(config: Any) -> int:
    """Double the hidden size."""
    return 2 * int(config.hidden_size)


def _yes(_config: Any) -> bool:
    """Write a yes, by which llama.cpp knows that a family does something that others leave out."""
    return True


_LLAMA = GgufFamily(arch="llama", permuted=True)
_GEMMA = GgufFamily(arch="gemma", norm_offset=1.0, activations=("gelu_pytorch_tanh",))
_GRANITE = GgufFamily(
    arch="granite",
    permuted=True,
    numbers={
        "add_logit_scale": "logits_scaling",
        "add_residual_scale": "residual_multiplier",
        "add_embedding_scale": "embedding_multiplier",
        "add_attention_scale": "attention_multiplier",
    },
)
_OLMO2 = GgufFamily(arch="olmo2", is_square=True, own_head=True)
_LAYER_NORMS = GgufFamily(arch="stablelm", layer_norms=True, epsilon="layer_norm_eps", is_square=True, own_head=True)
# llama.cpp has one GELU, the approximation by tanh, also for families that ask for the exact one (ggml_gelu).
_GELU = ("gelu", "gelu_new", "gelu_pytorch_tanh")
_MAMBA = GgufFamily(
    arch="mamba",
    epsilon="layer_norm_epsilon",
    numbers={
        "add_head_count": _zero,
        "add_head_count_kv": _zero,
        "add_feed_forward_length": _zero,
        "add_ssm_conv_kernel": "conv_kernel",
        "add_ssm_inner_size": "intermediate_size",
        "add_ssm_state_size": "state_size",
        "add_ssm_time_step_rank": "time_step_rank",
    },
    requires={"use_bias": False, "use_conv_bias": True, "intermediate_size": _twice},
)
_MIXTURE = {"add_expert_used_count": "num_experts_per_tok"}

# Families by `model_type` of their config.
FAMILIES: Mapping[str, GgufFamily] = {
    "llama": _LLAMA,
    "mistral": replace(_LLAMA, window="cap"),
    "qwen2": GgufFamily(arch="qwen2"),
    "qwen3": GgufFamily(arch="qwen3"),
    "smollm3": GgufFamily(arch="smollm3", permuted=True, rope_step=4),
    "gemma": _GEMMA,
    "gemma2": replace(_GEMMA, arch="gemma2", window="pattern", period=2),
    "gemma3_text": replace(_GEMMA, arch="gemma3", window="pattern", period=6),
    "granite": _GRANITE,
    "ministral": replace(_LLAMA, window="cap"),
    "olmo2": _OLMO2,
    "olmo3": replace(_OLMO2, window="pattern", period=4),
    "exaone4": GgufFamily(arch="exaone4", is_square=True, windowed_at=64),
    "cohere2": replace(
        _LAYER_NORMS,
        arch="cohere2",
        own_head=False,
        window="pattern",
        period=4,
        numbers={"add_logit_scale": "logit_scale"},
        requires={"tie_word_embeddings": True},
    ),
    "stablelm": _LAYER_NORMS,
    "starcoder2": replace(
        _LAYER_NORMS, arch="starcoder2", own_head=False, epsilon="norm_epsilon", activations=_GELU, window="cap"
    ),
    "glm4": GgufFamily(arch="glm4"),
    "phi": replace(_LAYER_NORMS, arch="phi2", activations=_GELU),
    "phi3": GgufFamily(arch="phi3", is_square=True, window="cap"),
    "gpt2": replace(_LAYER_NORMS, arch="gpt2", own_head=False, epsilon="layer_norm_epsilon", activations=_GELU),
    "gpt_neox": replace(
        _LAYER_NORMS,
        arch="gptneox",
        activations=_GELU,
        numbers={"add_parallel_residual": "use_parallel_residual"},
    ),
    "mixtral": replace(_LLAMA, numbers=_MIXTURE, window="cap"),
    "qwen3_moe": GgufFamily(
        arch="qwen3moe",
        numbers={**_MIXTURE, "add_expert_feed_forward_length": "moe_intermediate_size"},
        requires={"norm_topk_prob": True},
    ),
    "olmoe": GgufFamily(
        arch="olmoe",
        is_square=True,
        own_head=True,
        numbers=_MIXTURE,
        requires={"norm_topk_prob": False, "num_key_value_heads": "num_attention_heads"},
    ),
    "granitemoe": replace(
        _GRANITE,
        arch="granitemoe",
        numbers={**_GRANITE.numbers, **_MIXTURE},
        renames={
            "block_sparse_moe.router.": "block_sparse_moe.router.layer.",
            "block_sparse_moe.experts.": "mlp.experts.",
        },
    ),
    "gpt_oss": GgufFamily(
        arch="gpt-oss",
        window="pattern",
        period=2,
        own_head=True,
        numbers={**_MIXTURE, "add_expert_feed_forward_length": "intermediate_size"},
    ),
    "qwen2_moe": GgufFamily(
        arch="qwen2moe",
        is_square=True,
        own_head=True,
        numbers={
            **_MIXTURE,
            "add_expert_feed_forward_length": "moe_intermediate_size",
            "add_expert_shared_feed_forward_length": "shared_expert_intermediate_size",
        },
        requires={"norm_topk_prob": False},
    ),
    "mamba": _MAMBA,
    # llama.cpp has one small number for all norms of a file; FalconMamba's own for those on its choices is left out.
    "falcon_mamba": replace(_MAMBA, numbers={**_MAMBA.numbers, "add_ssm_dt_b_c_rms": _yes}),
    "mamba2": replace(
        _MAMBA,
        arch="mamba2",
        numbers={
            **_MAMBA.numbers,
            "add_ssm_inner_size": inner_size,
            "add_ssm_time_step_rank": "num_heads",
            "add_ssm_group_count": "n_groups",
        },
        requires={"use_bias": False, "use_conv_bias": True, "time_step_limit": (0.0, float("inf"))},
        renames={".dt_bias": ".dt_proj.bias"},
        upright=("A_log", "D"),
    ),
    "lfm2": GgufFamily(
        arch="lfm2",
        activations=(),
        epsilon="norm_eps",
        numbers={"add_head_count_kv": attention_groups, "add_shortconv_l_cache": "conv_L_cache"},
        requires={"conv_bias": False},
    ),
    "qwen3_5_text": GgufFamily(
        arch="qwen35",
        norm_offset=1.0,
        plain_norms=".linear_attn.norm.",
        flags={"attention.recurrent_layers": uneven_states},
        numbers={
            "add_ssm_conv_kernel": "linear_conv_kernel_dim",
            "add_ssm_inner_size": value_width,
            "add_ssm_state_size": "linear_key_head_dim",
            "add_ssm_time_step_rank": "linear_num_value_heads",
            "add_ssm_group_count": "linear_num_key_heads",
            "add_head_count_kv": "num_key_value_heads",
            "add_full_attention_interval": attention_interval,
            "add_rope_dimension_sections": rotary_sections,
        },
        requires={"linear_value_head_dim": "linear_key_head_dim"},
        renames={".dt_bias": ".dt_proj.bias"},
    ),
}
