"""Memory and arithmetic of a decoder from its config alone: what removing layers and holding 4 bits would save.

Counts follow Gromov et al. 2024 (The Unreasonable Ineffectiveness of the Deeper Layers), who give Llama-2-70B 140 GB
in 16 bits and 17.5 GB with half of the layers and 4 bits: all weights at the same number of bits. Beside it stands what
bitsandbytes stores, which leaves embedding, head and norms in 16 bits and adds scales.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from minigpt.errors import PlanError
from minigpt.transformer.arch import arch_of, check_shape, head_dim, parameters_of, shape_of

Bits = Literal[16, 4]
SCALE_BITS = 8 / 64 + 32 / (64 * 256)
MULTIPLY_ADD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The bill of one model; bytes are decimal (1 GB = 1e9 bytes).

    `weight_bytes`: all parameters at `bits`. `stored_bytes`: the projections at `bits` (4: NF4 with double-quantized
    scales), all else in 16. `cache_bytes_per_token`: keys and values in 16 bits. `flops_per_token`: two for every
    weight that a generated token is multiplied by (head included, embedding not) and for every key and value of
    `context` tokens. `paper_flops_per_token`: 6 x layers x hidden size squared, see :func:`paper_flops`.
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
    """What a model of this config costs with `layers` kept (None: all), `bits` a weight and `context` tokens read.

    Raises:
        UnsupportedModel: the family is not in the architecture table.
        PlanError: more layers than there are, none, or another number of bits.
    """
    if bits not in (16, 4):
        raise PlanError(f"Weights are estimated at 16 or 4 bits, not {bits}.")
    parent = shape_of(config)
    shape = replace(parent, layers=parent.layers if layers is None else layers)
    check_shape(config, shape)
    parameters, projections = parameters_of(config, shape), shape.layers * _layer_weights(config)
    stored = (parameters - projections) * 2 + round(projections * (bits + (SCALE_BITS if bits == 4 else 0)) / 8)
    heads, head = int(config.num_attention_heads), head_dim(config)
    products = projections + shape.vocab_size * int(config.hidden_size) + 2 * shape.layers * heads * head * context
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
    """6 x layers x hidden size squared: the paper's 3e10 FLOP a token for Llama-2-70B, and 1.5e10 with half the layers.

    The paper states these without a formula. Two FLOP for every weight, as everyone counts, are 1.4e11; this is the
    simplest product of the config's sizes that gives the printed order, for comparison with the paper only.
    """
    return 6 * layers * hidden * hidden


def _layer_weights(config: Any) -> int:
    """Weights of one layer's projections, biases and norms left out."""
    spec, hidden, head = arch_of(config), int(config.hidden_size), head_dim(config)
    queries = 2 * int(config.num_attention_heads)
    key_values = len(spec.key_value) * int(config.num_key_value_heads)
    ffn = (len(spec.ffn_rows) + 1) * int(config.intermediate_size)
    return hidden * (head * (queries + key_values) + ffn)
