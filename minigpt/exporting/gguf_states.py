"""Weights and numbers of layers with a state, in the layout that llama.cpp computes them in.

The layouts are those of llama.cpp's own converter (its folder `conversion/`); tests compare the logits.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def attention_groups(config: Any) -> list[int]:
    """Return the KV groups of each layer; by a zero llama.cpp knows that a layer has no attention."""
    return [config.num_key_value_heads if kind == "full_attention" else 0 for kind in config.layer_types]


def attention_interval(config: Any) -> int:
    """Return after how many layers attention comes again: the place of the first layer with attention.

    A model without any has an interval that no layer reaches.
    """
    places = [place for place, kind in enumerate(config.layer_types, 1) if kind == "full_attention"]
    return places[0] if places else int(config.num_hidden_layers) + 1


def uneven_states(config: Any) -> list[bool] | None:
    """Mark the layers with a state where the interval does not say which they are, because layers were removed."""
    interval = attention_interval(config)
    states = [kind != "full_attention" for kind in config.layer_types]
    even = states == [place % interval != 0 for place in range(1, len(states) + 1)]
    return None if even else states


def rotary_sections(config: Any) -> list[int]:
    """Share out rotary pairs among time, height and width, taking turns, as Qwen's interleaved rotary embedding does.

    Text has one position for all three, so any division gives the same; pairs in none of them would not turn at all.
    """
    partial = config.rope_parameters.get("partial_rotary_factor", 1.0)
    pairs = int(config.head_dim * partial) // 2
    return [(pairs + 2) // 3, (pairs + 1) // 3, pairs // 3, 0]


def inner_size(config: Any) -> int:
    """Return the width of Mamba-2's inner states."""
    return int(config.expand * config.hidden_size)


def value_width(config: Any) -> int:
    """Return the width of the values of Qwen3.5's linear attention."""
    return int(config.linear_num_value_heads * config.linear_value_head_dim)


def state_layout(source: str, tensor: Tensor, config: Any, *, upright: Collection[str] = ()) -> Tensor:
    """Return a tensor of a layer in the shape and form of llama.cpp, rows not moved yet.

    Decay is stored as it is used, -exp(A_log) (Dao and Gu 2024, section 5), convolutions have no axis for their single
    input channel, and of Mamba-2 what belongs to a head or to a group of the norm has a row of its own.

    Args:
        source: the tensor's name in transformers.
        tensor: the tensor.
        config: config of the model.
        upright: parameters of the layer that have a row for each of their numbers.
    """
    part = source.partition(".mixer.")[2] or source.rpartition(".linear_attn.")[2]
    if part == "A_log":
        tensor = -tensor.exp()
    if source.endswith(("conv1d.weight", "conv.conv.weight")):
        tensor = tensor.squeeze(1)
    if part == "out_proj.weight" and ".linear_attn." in source:
        tensor = tensor[:, tiled(config, config.linear_value_head_dim)]
    if part in upright:
        return tensor.unsqueeze(1)
    if ".mixer." in source and part == "norm.weight":
        return tensor.reshape(config.n_groups, -1)
    return tensor


def tiled(config: Any, size: int) -> NDArray[Any]:
    """Return the order that puts value heads of different key heads beside each other.

    In transformers the value heads of a key head are neighbors; llama.cpp repeats the key heads as a whole.

    Args:
        config: config of a Qwen3.5 model.
        size: rows of a head.
    """
    import numpy as np

    keys = config.linear_num_key_heads
    rows = np.arange(config.linear_num_value_heads * size)
    order: NDArray[Any] = rows.reshape(keys, -1, size).swapaxes(0, 1).ravel()
    return order


def state_rows(source: str, config: Any) -> slice | NDArray[Any]:
    """Return the order in which llama.cpp wants the rows of a tensor of Qwen3.5's linear attention."""
    import numpy as np

    part = source.rpartition(".linear_attn.")[2]
    size = config.linear_value_head_dim if ".linear_attn." in source else 0
    if part in ("in_proj_qkv.weight", "conv1d.weight"):
        first = 2 * config.linear_num_key_heads * config.linear_key_head_dim
        return np.concatenate([np.arange(first), first + tiled(config, size)])
    if part == "in_proj_z.weight":
        return tiled(config, size)
    if size and part in ("in_proj_a.weight", "in_proj_b.weight", "A_log", "dt_bias"):
        return tiled(config, 1)
    return slice(None)
