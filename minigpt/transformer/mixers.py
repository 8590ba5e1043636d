"""Parameters of what stands in place of plain attention in families with a state, by the sizes in their configs.

Each function counts the mixer of one layer, without the layer's norms and FFN, as the stock class makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def mamba2(config: Any) -> int:
    """Count Mamba-2's mixer: a convolution over inner states and their projections (Dao and Gu 2024)."""
    hidden, heads = config.hidden_size, config.num_heads
    inner = int(config.expand * hidden)
    channels = inner + 2 * config.n_groups * config.state_size
    wide = inner + channels + heads
    convolution = channels * (config.conv_kernel + config.use_conv_bias)
    return int(hidden * (wide + inner) + config.use_bias * (wide + hidden) + convolution + 3 * heads + inner)


def mamba(config: Any) -> int:
    """Count Mamba's mixer: a convolution over inner states, and what each token chooses of them (Gu and Dao 2023).

    FalconMamba's norms on these choices have no weights.
    """
    hidden, inner, rank, states = config.hidden_size, config.intermediate_size, config.time_step_rank, config.state_size
    convolution = inner * (config.conv_kernel + config.use_conv_bias)
    selection = inner * (2 * rank + 2 * states + 1)
    projections = 3 * hidden * inner + config.use_bias * (2 * inner + hidden)
    return int(projections + convolution + selection + inner * (states + 1))


def rwkv(config: Any) -> int:
    """Count RWKV-4's time mixing and channel mixing (Peng et al. 2023); both keep the token before."""
    hidden = config.hidden_size
    inner = config.attention_hidden_size or hidden
    wide = config.intermediate_size or 4 * hidden
    time = 2 * inner + 3 * hidden + 4 * hidden * inner
    return int(time + 2 * hidden + hidden * hidden + 2 * hidden * wide)


def short_convolution(config: Any) -> int:
    """Count LFM2's gated short convolution."""
    hidden = config.hidden_size
    return int(hidden * (4 * hidden + config.conv_L_cache) + config.conv_bias * 5 * hidden)


def gated_delta(config: Any) -> int:
    """Count Qwen3.5's gated delta net (Yang et al. 2024)."""
    hidden, heads = config.hidden_size, config.linear_num_value_heads
    keys = config.linear_key_head_dim * config.linear_num_key_heads
    values = config.linear_value_head_dim * heads
    projections = hidden * (2 * keys + 3 * values + 2 * heads)
    convolution = (2 * keys + values) * config.linear_conv_kernel_dim
    return int(projections + convolution + 2 * heads + config.linear_value_head_dim)


def attention(config: Any, *, gated: bool = False) -> int:
    """Count grouped attention without biases, with norms of a head on queries and keys.

    Args:
        config: the config.
        gated: whether the query projection gives a gate of every head, too.
    """
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = (2 + gated) * config.num_attention_heads + 2 * config.num_key_value_heads
    return int(size * (config.hidden_size * heads + 2))


def gated_attention(config: Any) -> int:
    """Count Qwen3.5's attention, whose output is gated."""
    return attention(config, gated=True)


# The functions by the names that the table of families uses.
COUNTS: Mapping[str, Callable[[Any], int]] = {
    "mamba2": mamba2,
    "mamba": mamba,
    "rwkv": rwkv,
    "short convolution": short_convolution,
    "gated delta": gated_delta,
    "attention": attention,
    "gated attention": gated_attention,
}


def adjusted_width(config: Any) -> int:
    """Return the FFN's width where the config gives that of a plain FFN: two thirds, scaled and rounded up (LFM2)."""
    width = int(2 * config.intermediate_size / 3)
    if config.block_ffn_dim_multiplier is not None:
        step = int(config.block_multiple_of)
        width = step * -(-int(config.block_ffn_dim_multiplier * width) // step)
    return width
