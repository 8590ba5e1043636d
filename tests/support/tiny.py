"""Tiny random models and tokenizers, made on the spot: every family the architecture table names."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

from minigpt.transformer.families import ARCHITECTURES

# Families whose attention is plain softmax: all but Gemma 2, which caps its scores, and those with a state.
FAMILIES = tuple(name for name, spec in ARCHITECTURES.items() if name != "gemma2" and spec.state is None)

# Values of config fields that matter in a family, and names of its own for what `tiny_config` sets.
UNUSUAL: dict[str, dict[str, Any]] = {
    "gemma3_text": {"sliding_window": 64, "query_pre_attn_scalar": 8},
    "granite": {
        "residual_multiplier": 0.3,
        "embedding_multiplier": 3.0,
        "logits_scaling": 2.0,
        "attention_multiplier": 0.3,
    },
    "ministral": {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]},
    "olmo3": {"sliding_window": 64},
    "exaone4": {"sliding_window": 64, "sliding_window_pattern": 2},
    "cohere2": {"sliding_window": 64, "logit_scale": 0.5},
    "stablelm": {"use_qkv_bias": True},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 512},
    "gpt2": {"n_inner": 64, "max_position_embeddings": 512},
    "phi3": {"original_max_position_embeddings": 256},
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": True},
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 48,
    },
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": {"num_local_experts": 4, "residual_multiplier": 0.3, "attention_multiplier": 0.3},
    "gpt_oss": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "mamba": {"state_size": 8, "time_step_rank": 3},
    "falcon_mamba": {"state_size": 8, "time_step_rank": 3, "mixer_rms_eps": 1e-5},
    "mamba2": {"expand": 2, "num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 16},
    "rwkv": {"attention_hidden_size": 32, "context_length": 256, "rescale_every": 0},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8, "full_attn_idxs": [1, 3]},
    "qwen3_5_text": {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    },
}

SENTENCES = (
    "The heart pumps blood through the arteries and the veins of the body.",
    "A fever of 38.5 degrees is a sign of infection; the patient should rest.",
    "The court held that the statute was not void for vagueness in 1999.",
    "Revenue rose by 12 percent, driven by higher interest income and fees.",
    "Die Würde des Menschen ist unantastbar.\n\nNaïve café, 東京 and emoji 🙂 too.",
    "\tif x == 10:\n\t\treturn  'two  spaces'\r\n",
)


@cache
def tiny_tokenizer(vocab_size: int = 512) -> Any:
    """A byte-level BPE tokenizer (GPT-2 style) trained on a few sentences, with chat template and specials 0-2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(list(SENTENCES) * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template="{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    )


def tiny_config(family: str, *, vocab_size: int = 512, layers: int = 4, tied: bool = True) -> Any:
    """A config of `family`: hidden 32, FFN 64, 4 query heads in 2 KV groups of head size 8."""
    from transformers import AutoConfig

    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    fields = {name: value for name, value in fields.items() if name in known_fields(family)} | UNUSUAL.get(family, {})
    if "layer_types" in fields:
        fields["layer_types"] = [fields["layer_types"][index % 2] for index in range(layers)]
    return AutoConfig.for_model(family, **fields)


@cache
def known_fields(family: str) -> frozenset[str]:
    """Return the fields that the config class of a family has by itself: one with more hides what real ones lack."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[family]
    return frozenset({field.name for field in dataclasses.fields(kind)} | set(kind.attribute_map))


def tiny_model(
    family: str = "llama", *, seed: int = 0, vocab_size: int = 512, layers: int = 4, tied: bool = True
) -> Any:
    """A random model in eval mode, fp32, with weights large enough that every unit matters."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = tiny_config(family, vocab_size=vocab_size, layers=layers, tied=tied)
    attention = "eager" if family in {"gemma2", "gpt_oss", "mamba", "falcon_mamba", "mamba2", "rwkv"} else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return model
