"""Estimates of a decoder's memory and arithmetic from its config alone, with fewer layers or 4-bit weights.

Counts follow Gromov et al. 2024 (The Unreasonable Ineffectiveness of the Deeper Layers): all weights have the same
number of bits, so Llama-2-70B takes 140 GB in 16 bits, and 17.5 GB with half of the layers and 4 bits. A second count
is what bitsandbytes stores, which leaves embedding, head and norms in 16 bits and adds scales.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from minigpt.errors import PlanError
from minigpt.transformer.arch import arch_of, check_shape, head_dim, parameters_of, refuse_state, shape_of

# Numbers of bits a weight that can be estimated.
Bits = Literal[16, 4]
# Bits of the scales for each 4-bit weight: 8 for a block of 64 weights, and 32 for 256 such blocks.
SCALE_BITS = 8 / 64 + 32 / (64 * 256)
# Operations of a weight in a matrix product: one multiplication and one addition.
MULTIPLY_ADD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Estimate of one model's memory and arithmetic.

    Attributes:
        model_type: family of the model.
        layers: number of decoder layers.
        bits: bits of a weight.
        context: tokens that a generated token attends to.
        parameters: number of parameters; tied weights count once.
        weight_bytes: bytes of all parameters at `bits` bits.
        stored_bytes: bytes with the projections of the layers at `bits` bits (4: NF4 with double-quantized scales) and
            everything else in 16 bits.
        cache_bytes_per_token: bytes of one token's keys and values in 16 bits.
        flops_per_token: operations for a generated token: two for every weight that it is multiplied by (head included,
            embedding not) and for every key and value of `context` tokens.
        paper_flops_per_token: operations as the paper counts them, see :func:`paper_flops`.
    """

    model_type: str
    layers: int
    bits: int
    context: int
    parameters: int
    weight_bytes: int
    stored_bytes: int
    cache_bytes_per_token: int
    flops_per_token: int
    paper_flops_per_token: int


def estimate(config: Any, *, layers: int | None = None, bits: Bits = 16, context: int = 0) -> Estimate:
    """Estimate the memory and the arithmetic of a model from its config.

    Args:
        config: config of the whole model.
        layers: number of layers that are kept (None: all).
        bits: bits of a weight, 16 or 4.
        context: tokens that a generated token attends to.

    Raises:
        UnsupportedModel: the family is not in the architecture table.
        PlanError: the model has fewer layers, no layer is kept, or another number of bits is asked for.
    """
    if bits not in (16, 4):
        raise PlanError(f"Weights are estimated at 16 or 4 bits, not {bits}.")
    refuse_state(config, "The estimate", advice="`minigpt build --plan-only` gives their parameters")
    parent = shape_of(config)
    shape = replace(parent, layers=parent.layers if layers is None else layers)
    check_shape(config, shape)
    parameters, projections = parameters_of(config, shape), shape.layers * _layer_weights(config, shape.experts)
    stored = (parameters - projections) * 2 + round(projections * (bits + (SCALE_BITS if bits == 4 else 0)) / 8)
    heads, head = int(config.num_attention_heads), head_dim(config)
    active = shape.layers * _layer_weights(config, experts_of_token(config))
    products = active + shape.vocab_size * int(config.hidden_size) + 2 * shape.layers * heads * head * context
    return Estimate(
        model_type=str(config.model_type),
        layers=shape.layers,
        bits=bits,
        context=context,
        parameters=parameters,
        weight_bytes=parameters * bits // 8,
        stored_bytes=stored,
        cache_bytes_per_token=shape.layers * 2 * shape.kv_groups * head * 2,
        flops_per_token=MULTIPLY_ADD * products,
        paper_flops_per_token=paper_flops(shape.layers, int(config.hidden_size)),
    )


def paper_flops(layers: int, hidden: int) -> int:
    """Return the operations a token as Gromov et al. 2024 seem to count them: 6 x layers x hidden size squared.

    The paper gives 3e10 for Llama-2-70B, and 1.5e10 with half of the layers, without a formula. This is the simplest
    product of the config's sizes that gives these numbers, and it serves for comparison with the paper only. The usual
    count, two operations for every weight, is 1.4e11.
    """
    return 6 * layers * hidden * hidden


def experts_of_token(config: Any) -> int:
    """Return the number of experts that each token goes to; 0 if the family has none."""
    experts = arch_of(config).experts
    return 0 if experts is None else int(getattr(config, experts.per_token))


def _layer_weights(config: Any, experts: int) -> int:
    """Return the number of weights in one layer's projections, without biases and norms, with this many experts."""
    spec, hidden, head = arch_of(config), int(config.hidden_size), head_dim(config)
    queries = 2 * int(config.num_attention_heads)
    key_values = len(spec.key_value) * shape_of(config).kv_groups
    ffn = (len(spec.ffn_rows) + 1) * shape_of(config).intermediate_size
    if spec.experts is not None:
        shared = int(getattr(config, spec.experts.shared)) if spec.experts.shared else 0
        ffn = experts * ffn + shape_of(config).experts + (3 * shared + 1 if shared else 0)  # router, and gate of shared
    return hidden * (head * (queries + key_values) + ffn)
