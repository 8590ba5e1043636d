"""Sparse upcycling: a mixture of experts whose experts are copies of a dense model's FFNs (Komatsuzaki et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch

from minigpt.transformer.arch import arch_of, decoder_layers

# Standard deviation of the rows of a new router: small, so that the first routing is nearly even.
ROUTER_STD = 0.02


def mixture_config(config: Any, experts: int, per_token: int) -> Any:
    """Return the Mixtral config of a Llama's shape with experts of the width of its FFN."""
    from transformers import MixtralConfig

    return MixtralConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        hidden_act=config.hidden_act,
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters=config.rope_parameters,
        tie_word_embeddings=config.tie_word_embeddings,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        num_local_experts=experts,
        num_experts_per_tok=per_token,
    )


@torch.no_grad()
def upcycle(model: Any, *, experts: int, per_token: int, noise: float, seed: int = 0) -> Any:
    """Make a mixture of experts from a dense Llama: copies of every FFN with noise, and new routers.

    The weights of a token's experts sum to 1. So without noise the mixture computes what the dense model does.

    Args:
        model: the dense model, in fp32; it stays as it is.
        experts: experts of a layer.
        per_token: experts of a token.
        noise: standard deviation of what is added to each expert, in that of the copied matrix.
        seed: seed of noise and routers.
    """
    from transformers import MixtralForCausalLM

    config = mixture_config(model.config, experts, per_token)
    mixture = MixtralForCausalLM._from_config(config, dtype=torch.float32).eval()
    dense, generator = model.state_dict(), torch.Generator().manual_seed(seed)
    for name, parameter in mixture.named_parameters():
        if name in dense:
            parameter.copy_(dense[name])
    spec = arch_of(model)
    for source, target in zip(decoder_layers(model), decoder_layers(mixture), strict=True):
        rows = torch.cat([source.get_submodule(path).weight for path in spec.ffn_rows])
        columns = source.get_submodule(spec.ffn_columns).weight
        for stack, matrix in ((target.mlp.experts.gate_up_proj, rows), (target.mlp.experts.down_proj, columns)):
            for expert in stack:
                drawn = torch.randn(matrix.shape, generator=generator)
                expert.copy_(matrix.cpu() + noise * matrix.std().cpu() * drawn)
        router = target.mlp.gate.weight
        router.copy_(ROUTER_STD * torch.randn(router.shape, generator=generator))
    return mixture.to(model.device)
